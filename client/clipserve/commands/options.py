"""Options that several commands share. Names, types, defaults and texts come from the dataclasses of the client."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from clipserve.arguments import read_arguments, read_parameters
from clipserve.classifier import VideoClassifier
from clipserve.connection import DEFAULT_URL, Connection, Tls, check_headers
from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.options import RunArguments

ADMIN_HEADER = "triton-grpc-protocol-clipserve-admin"  # docs/security.md, Keys


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a dataclass by one command-line option for each field.

    >>> @spread_options
    ... def classify(sources: list[str], *, server: ServerOptions) -> None: ...

    Typer sees the fields (`--url`, `--timeout`, ...) in place of `server`; the command receives the dataclass. Values
    that the dataclass refuses are wrong usage.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint) and isinstance(hint, type):
            options = _list_options(hint)
            groups[parameter.name] = (hint, [option.name for option in options])
            parameters += options
        else:
            parameters.append(parameter.replace(annotation=hint))

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        made: dict[str, Any] = {}
        for name, (group, options) in groups.items():
            try:
                made[name] = group(**{option: arguments.pop(option) for option in options})
            except ClipserveError as error:
                # Messages about one argument begin with its name.
                wrong = [_name_flag(option) for option in options if str(error).startswith(f"{option} ")]
                raise typer.BadParameter(str(error), param_hint=wrong or None) from error
        command(**arguments, **made)

    # Typer reads both.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def make_option(owner: type, name: str, **settings: Any) -> Any:
    """A typer.Option for the field `name` of a dataclass, as its Argument says; `settings` replace what that says."""
    argument = read_arguments(owner)[name]
    hint = read_parameters(owner)[name].annotation
    settings.setdefault("help", f"{argument.doc[0].upper()}{argument.doc[1:]}.")
    settings.setdefault("metavar", argument.metavar)
    if type(None) in get_args(hint):
        settings.setdefault("show_default", argument.default or False)
    flag = [_name_flag(name)] if hint is bool else []  # and no --no-NAME
    return typer.Option(*flag, **settings)


def _name_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _list_options(group: type) -> list[inspect.Parameter]:
    """An option for each field: from the field's Argument, or as it is annotated for Typer."""
    hints = get_type_hints(group, include_extras=True)
    options = []
    for name, parameter in read_parameters(group).items():
        declared = name in read_arguments(group)
        hint = Annotated[parameter.annotation, make_option(group, name)] if declared else hints[name]
        options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))
    return options


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCES...",
        help="Video files, patterns, folders, http(s) addresses, lists, or - for a video from standard input. A list"
        " is CSV with the columns id, path, label, or JSON lines with these keys. Files, patterns, folders and lists"
        " may be in a store, such as s3://bucket/videos.",
    ),
]
ModelOption = Annotated[
    str, typer.Option(metavar="NAME", help="A model of the server. A wrong name gives an error that lists its models.")
]
ParallelOption = Annotated[int, make_option(RunArguments, "parallel", min=1)]
RetrySecondsOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="How long to wait for a server that is busy, does not answer, or loads the model; at least --timeout. By"
        " default as long as --timeout, and only for a server that has answered before.",
        show_default=False,
    ),
]
JobRetrySecondsOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="With --out: how long to wait for a server that does not answer; at least --timeout.",
    ),
]
ShardOption = Annotated[
    str, typer.Option(metavar="I/N", help="Use every N-th video, beginning with the I-th.", show_default=False)
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the server's admin key, which loading a model and reading statistics need.",
        show_default=False,
    ),
]


def read_admin_key(file: Path | None) -> dict[str, str]:
    """The headers of KeyFileOption. Raises InvalidRequest."""
    if file is None:
        return {}
    try:
        key = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise InvalidRequest(f"cannot read --key-file {file}: {error.strerror}") from error
    if not (key.isascii() and key.isprintable()):  # and do not show it
        raise InvalidRequest(f"--key-file {file} must hold the key alone, in one line of printable ASCII characters")
    return {ADMIN_HEADER: key}


@dataclass(frozen=True)
class AccessOptions:
    """How a command encrypts, and says who calls."""

    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")] = False
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_ROOT_CERTIFICATES",
            help="Certificate authorities to trust, in place of those that gRPC includes; implies --tls.",
            show_default=False,
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_CLIENT_KEY",
            help="The client's private key, for a server that requires client certificates; implies --tls.",
            show_default=False,
        ),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_CLIENT_CERTIFICATE",
            help="The client's certificate, for --client-key.",
            show_default=False,
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:VALUE",
            help="A header to send with every call, such as a key. Repeat it for several.",
            show_default=False,
        ),
    ] = None

    def choose_tls(self) -> Tls | None:
        """As the options say. Raises typer.BadParameter."""
        if (self.client_key is None) != (self.client_certificate is None):
            missing = "--client-key" if self.client_key is None else "--client-certificate"
            raise typer.BadParameter(
                "a key needs its certificate: give both --client-key and --client-certificate, or neither",
                param_hint=missing,
            )
        if self.tls or self.root_certificates or self.client_key:
            return Tls(self.root_certificates, self.client_key, self.client_certificate)
        return None

    def read_headers(self) -> dict[str, str]:
        """By name in lower case. Raises typer.BadParameter, which does not show what may be a secret."""
        headers = {}
        for pair in self.header or []:
            name, colon, value = pair.partition(":")
            if not colon:
                raise typer.BadParameter("a header must be NAME:VALUE, got one without a colon", param_hint="--header")
            headers[name.strip()] = value.strip()
        try:
            return check_headers("headers", headers)
        except InvalidRequest as error:
            raise typer.BadParameter(str(error), param_hint="--header") from error


@dataclass(frozen=True)
class AddressOptions:
    """Where a server is."""

    url: Annotated[str, make_option(Connection, "url", envvar="CLIPSERVE_URL")] = DEFAULT_URL


@dataclass(frozen=True)
class ConnectionOptions(AccessOptions, AddressOptions):  # its fields begin with those of the last class
    """How a command reaches a server."""


@dataclass(frozen=True)
class ServerOptions(ConnectionOptions):
    """The options of every command that classifies."""

    timeout: Annotated[float, make_option(Connection, "timeout_seconds")] = Connection.timeout_seconds

    def open_classifier(self, model: str) -> VideoClassifier:
        """A classifier for `model`. Raises typer.BadParameter, which shows the usage."""
        try:
            return VideoClassifier(
                model, self.url, timeout_seconds=self.timeout, tls=self.choose_tls(), headers=self.read_headers()
            )
        except ClipserveError as error:
            raise typer.BadParameter(str(error)) from error
