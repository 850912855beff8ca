"""The way to the server: address, TLS, metadata and the options of the gRPC channel."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from clipserve import defaults
from clipserve.amounts import read_real
from clipserve.errors import InvalidRequest
from clipserve.failures import Call
from clipserve.names import UNPRINTABLE
from clipserve.proxies import is_local
from clipserve.sources.downloads import DownloadLimits

# What gRPC takes: "-bin" keys carry base64 and are of no use here.
_HEADER_KEY = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class Tls:
    """Encrypt the connection.

    Attributes:
        root_certificates: PEM file of the authorities to trust; None: those gRPC brings along.
        private_key: PEM file of this client's key, where the server asks clients for a certificate.
        certificate_chain: PEM file of this client's certificate; goes with `private_key`.
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


OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", defaults.MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", defaults.MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", defaults.KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", defaults.KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", defaults.FIRST_RECONNECT_MS),
    ("grpc.max_reconnect_backoff_ms", defaults.LONGEST_RECONNECT_MS),
    # A connection and a backoff of its own for each classifier: gRPC would otherwise share both
    # between all channels of the process that go to one address.
    ("grpc.use_local_subchannel_pool", 1),
)


def choose_options(url: str) -> list[tuple[str, int]]:
    """The channel's options. A server on this machine is never asked through a proxy: that one could not reach it."""
    return [*OPTIONS, *([("grpc.enable_http_proxy", 0)] if is_local(url) else [])]


@dataclass(frozen=True)
class Settings:
    """What a classifier was made with, checked."""

    model: str
    url: str
    tls: Tls | None
    headers: Mapping[str, str] = field(repr=False)  # they may hold secrets
    timeout_seconds: float
    download_limits: DownloadLimits | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model or UNPRINTABLE.search(self.model):
            raise InvalidRequest(f"model is a model's name, such as {defaults.MODEL!r}; got {self.model!r}")
        check_url(self.url)
        if not isinstance(self.tls, Tls | None):
            raise InvalidRequest(f"tls is Tls(...) or None, got {self.tls!r}")
        object.__setattr__(self, "headers", check_headers(self.headers))
        check_timeout(self.timeout_seconds)

    def client_arguments(self) -> dict[str, Any]:
        """Arguments of tritonclient's InferenceServerClient, the same for sync and async."""
        return {
            "url": self.url,
            "creds": self.tls.credentials() if self.tls else None,
            "channel_args": choose_options(self.url),
        }

    def start_call(self, timeout_seconds: float | None) -> Call:
        """A call with a deadline of its own, or the default one.

        Raises:
            InvalidRequest: the deadline is none.
        """
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        return Call(url=self.url, model=self.model, timeout_seconds=check_timeout(seconds))


def check_url(url: str) -> None:
    """Refuse what gRPC would resolve as a host name and then never find."""
    schemes = ("http:", "https:", "grpc:", "grpcs:")
    if not isinstance(url, str) or not url or url.startswith(schemes) or UNPRINTABLE.search(url):
        # What stands ahead of an @ may be a password.
        got = f"...{url[url.rindex('@') :]}" if isinstance(url, str) and "@" in url else url
        raise InvalidRequest(
            f"url is host:port of the server's gRPC port, such as {defaults.URL!r}, without a"
            f" scheme (tls=Tls(), or --tls, encrypts); got {got!r}"
        )
    if "@" in url and not url.startswith("unix"):
        raise InvalidRequest(
            "url is host:port alone, and this one has an @: gRPC sends no user:password@. Give credentials as"
            " headers={'authorization': ...} (--header 'authorization: ...')"
        )


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower-case the keys, as gRPC demands, and refuse what it would not send."""
    checked = {}
    if not isinstance(headers, Mapping):
        raise InvalidRequest(f"headers are a mapping of names to values, got {type(headers).__name__}")
    for key, value in headers.items():
        if not isinstance(key, str) or not _HEADER_KEY.fullmatch(key.lower()) or key.lower().endswith("-bin"):
            raise InvalidRequest(
                f"a header's name has letters, digits and _ . - only, and does not end in -bin; got {key!r}"
            )
        # The value may be a secret: it is not shown.
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequest(f"the value of header {key!r} is not a str of printable ASCII")
        checked[key.lower()] = value
    return checked


def check_timeout(timeout_seconds: float) -> float:
    """Refuse a deadline that is none."""
    seconds = read_real(timeout_seconds)
    if seconds is None or not 0 < seconds <= defaults.LONGEST_SECONDS:
        raise InvalidRequest(
            f"timeout_seconds is a positive number of seconds, at most {defaults.LONGEST_SECONDS:,};"
            f" got {timeout_seconds!r}"
        )
    return seconds


def check_patience(patience_seconds: float | None) -> float | None:
    """Refuse what is no time to wait."""
    if patience_seconds is None:
        return None
    seconds = read_real(patience_seconds)
    if seconds is None or seconds < 0:
        raise InvalidRequest(f"patience_seconds is a number of seconds from 0 on, or None, got {patience_seconds!r}")
    return seconds
