"""The connection to a server: address, TLS, headers and the options of the gRPC channel."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc  # type: ignore[import-untyped]

from clipserve.arguments import Argument, CheckedArguments
from clipserve.checks import MAX_MESSAGE_BYTES, check_timeout
from clipserve.error_mapping import CallContext
from clipserve.errors import InvalidRequest
from clipserve.fleet.targets import Target, split_urls
from clipserve.names import UNPRINTABLE
from clipserve.proxies import find_proxy, is_local
from clipserve.sources.downloads import DownloadLimits

# What gRPC sends; names that end in "-bin" carry base64 and are of no use here.
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")

# host:port, and what gRPC takes beside it. Without a port gRPC would try 443; of one above 65535 getaddrinfo takes the
# low 16 bits.
_SERVER = re.compile(r"(?:dns:(?:///)?)?(?:\[[^\[\]\s/]+\]|[^\[\]\s/:]+):(?P<port>[0-9]{1,5})", re.IGNORECASE)
_OTHER_TARGETS = re.compile(r"(?:(?:unix|unix-abstract|vsock|ipv4|ipv6|xds|passthrough):|dns://[^/\s]+/)[^\s].*")

DEFAULT_URL = "localhost:8001"  # Triton's port for gRPC; 8000 is the one for HTTP

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A stock Triton disconnects clients that ping more often than every 300 s
    # (--grpc-http2-min-recv-ping-interval-without-data).
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # gRPC waits up to 120 s between attempts to reach a server that was down. The client should find a server that has
    # just come up within seconds.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Each classifier has a connection and a backoff of its own: gRPC would otherwise share both between all channels
    # of the process that go to one address.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class Tls:
    """Encrypt the connection.

    Attributes:
        root_certificates: PEM file of the certificate authorities to trust; None: those that gRPC includes.
        private_key: PEM file of this client's key, for a server that requires client certificates.
        certificate_chain: PEM file of this client's certificate; needed with `private_key`.
    """

    root_certificates: str | os.PathLike[str] | None = None
    private_key: str | os.PathLike[str] | None = None
    certificate_chain: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidRequest(
                "a client certificate is two files: give private_key and certificate_chain, or"
                f" neither; got private_key={self.private_key!r},"
                f" certificate_chain={self.certificate_chain!r}"
            )

    def _read(self, name: str) -> bytes | None:
        path = getattr(self, name)
        if path is None:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as exc:
            raise InvalidRequest(
                f"cannot read {name} of Tls, {os.fspath(path)!r}: {exc.strerror}. It is the path of a PEM file."
            ) from exc

    def credentials(self) -> Any:
        """The channel's credentials, read from the files now.

        Raises:
            InvalidRequest: a file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=self._read("root_certificates"),
            private_key=self._read("private_key"),
            certificate_chain=self._read("certificate_chain"),
        )


def check_model(name: str, value: object) -> str:
    """Accept the name of a model."""
    if not isinstance(value, str) or not value or UNPRINTABLE.search(value):
        raise InvalidRequest(f"{name} must be the name of a model, such as {Connection.model!r}; got {value!r}")
    return value


def check_urls(name: str, value: object) -> str:
    """Accept the addresses of one server or of several, in a list or separated by commas; returns the latter form."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray) and value:
        urls: Sequence[object] = value
    else:
        urls = split_urls(value) if isinstance(value, str) else [value]
    return ",".join(dict.fromkeys(check_url(name, url) for url in urls))


def check_url(name: str, value: object) -> str:
    """Refuse addresses that gRPC would take for a host name and never resolve."""
    schemes = ("http:", "https:", "grpc:", "grpcs:")
    if not isinstance(value, str) or not value or value.startswith(schemes) or UNPRINTABLE.search(value):
        # The part before an @ may be a password.
        got = f"...{value[value.rindex('@') :]}" if isinstance(value, str) and "@" in value else value
        raise InvalidRequest(
            f"{name} must be host:port of the server's gRPC port, such as {DEFAULT_URL!r}, or a list of these, without"
            f" a scheme (for TLS use tls=Tls() or --tls); got {got!r}"
        )
    if "@" in value and not value.startswith("unix"):
        raise InvalidRequest(
            f"{name} must be host:port without user:password@, which gRPC does not send. Give credentials as"
            " headers={'authorization': ...} (--header 'authorization: ...')"
        )
    server = _SERVER.fullmatch(value)
    if not (1 <= int(server["port"]) <= 65535 if server else _OTHER_TARGETS.fullmatch(value)):
        raise InvalidRequest(
            f"{name} must be host:port, such as {DEFAULT_URL!r}, '[::1]:8001' or 'dns:///triton.example.org:8001', with"
            f" a port from 1 to 65535, or a list of these, separated by commas; got {value!r}"
        )
    return value


def check_tls(name: str, value: object) -> Tls:
    """Accept a Tls."""
    if not isinstance(value, Tls):
        raise InvalidRequest(f"{name} must be Tls(...) or None, got {value!r}")
    return value


def check_headers(name: str, value: object) -> dict[str, str]:
    """Lower-case the names, as gRPC demands, and refuse what it would not send."""
    checked = {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} must be a mapping of names to values, got {type(value).__name__}")
    for key, text in value.items():
        if not isinstance(key, str) or not _HEADER_NAME.fullmatch(key.lower()) or key.lower().endswith("-bin"):
            raise InvalidRequest(
                f"a header's name may have only letters, digits and _ . -, and must not end in -bin; got {key!r}"
            )
        # The message does not show the value, which may be a secret.
        if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
            raise InvalidRequest(f"the value of header {key!r} must be a str of printable ASCII")
        checked[key.lower()] = text
    return checked


@dataclass(frozen=True)
class Connection(CheckedArguments):
    """The arguments of a classifier: which model of which server to call, and how."""

    model: Annotated[str, Argument("public name of a model; `models()` lists them", check_model, "NAME")] = "x3d_m"
    url: Annotated[
        str | Sequence[str],
        Argument(
            "the server's gRPC port, as host:port. Several servers: a list, or separated by commas."
            " dns:///NAME:PORT: every address of the name",
            check_urls,
            "HOST:PORT,...",
        ),
    ] = DEFAULT_URL
    _: KW_ONLY
    timeout_seconds: Annotated[
        float, Argument("deadline of every call, from sending to the answer", check_timeout, "SECONDS")
    ] = 60.0
    tls: Annotated[Tls | None, Argument("how to encrypt; None: without encryption", check_tls)] = None
    headers: Annotated[
        Mapping[str, str] | None,
        Argument('gRPC metadata to send with every call, such as {"authorization": "Bearer ..."}', check_headers),
    ] = field(default=None, repr=False)  # they may hold secrets
    download_limits: Annotated[DownloadLimits | None, Argument("limits for downloading a video from an address")] = None

    @property
    def urls(self) -> tuple[str, ...]:
        """The address of each server."""
        return split_urls(self.url)

    @property
    def shown_url(self) -> str:
        """The addresses, as messages show them."""
        return ",".join(self.urls)

    def channel_options(self, target: Target) -> list[tuple[str, Any]]:
        """The options of a channel to one of the servers."""
        if target.name is None:
            return [*choose_channel_options(target.address)]
        # The certificate, and the proxies of the environment, are about the name and not about an address of it.
        direct = [] if find_proxy(target.name) else [("grpc.enable_http_proxy", 0)]
        return [*CHANNEL_OPTIONS, ("grpc.default_authority", target.name), *direct]

    def open_channel(self, target: Target, credentials: Any, module: Any = grpc) -> Any:
        """A channel to one of the servers. module: grpc, or grpc.aio for one that is awaited."""
        options = self.channel_options(target)
        if credentials is None:
            return module.insecure_channel(target.address, options=options)
        return module.secure_channel(target.address, credentials, options=options)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers, as calls of gRPC take them."""
        return tuple((self.headers or {}).items())

    def start_call(self, timeout_seconds: float | None = None) -> CallContext:
        """The context of a call with this deadline; None takes the connection's.

        Raises:
            InvalidRequest: the deadline is not allowed.
        """
        seconds = self.timeout_seconds if timeout_seconds is None else check_timeout("timeout_seconds", timeout_seconds)
        return CallContext(url=self.shown_url, model=self.model, timeout_seconds=seconds)


def choose_channel_options(url: str) -> list[tuple[str, int]]:
    """The channel's options. A server on this machine is never asked through a proxy, which could not reach it."""
    return [*CHANNEL_OPTIONS, *([("grpc.enable_http_proxy", 0)] if is_local(url) else [])]
