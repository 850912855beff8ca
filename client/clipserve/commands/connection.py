"""The way to the server, as options of a command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from clipserve import defaults
from clipserve.channel import Tls
from clipserve.classifier import VideoClassifier
from clipserve.errors import ClipserveError

ModelOption = Annotated[
    str, typer.Option(metavar="NAME", help="A model that the server has; of a wrong name, the error lists those.")
]


@dataclass(frozen=True)
class Connection:
    """The options of every command that talks to a server; see option_groups.py.

    >>> @spread_options
    ... def evaluate(source: str, *, model: ModelOption = defaults.MODEL, connection: Connection) -> None:
    ...     with connection.open_classifier(model) as classifier: ...
    """

    url: Annotated[str, typer.Option(metavar="HOST:PORT", envvar="CLIPSERVE_URL", help="The server's gRPC port.")] = (
        defaults.URL
    )
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Longest wait for the answer to one video.")] = (
        defaults.TIMEOUT_SECONDS
    )
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection; trust the usual authorities.")] = False
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_ROOT_CERTIFICATES",
            help="Authorities to trust instead; implies --tls.",
            show_default=False,
        ),
    ] = None
    client_key: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_CLIENT_KEY",
            help="Your own key, where the server asks for a certificate.",
            show_default=False,
        ),
    ] = None
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="PEM",
            envvar="CLIPSERVE_CLIENT_CERTIFICATE",
            help="The certificate of --client-key; both imply --tls.",
            show_default=False,
        ),
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:VALUE", help="Sent with every call, such as a key; may be repeated.", show_default=False
        ),
    ] = None

    def open_classifier(self, model: str) -> VideoClassifier:
        """A classifier for `model`. Raises typer.BadParameter, which shows the usage."""
        try:
            return VideoClassifier(
                model,
                self.url,
                timeout_seconds=self.timeout,
                tls=self._choose_tls(),
                headers=_read_headers(self.header or []),
            )
        except ClipserveError as error:
            raise typer.BadParameter(str(error)) from error

    def _choose_tls(self) -> Tls | None:
        if (self.client_key is None) != (self.client_certificate is None):
            missing = "--client-key" if self.client_key is None else "--client-certificate"
            raise typer.BadParameter(
                "a key goes with its certificate: give --client-key and --client-certificate, or neither",
                param_hint=missing,
            )
        if self.tls or self.root_certificates or self.client_key:
            return Tls(self.root_certificates, self.client_key, self.client_certificate)
        return None


def _read_headers(pairs: list[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise typer.BadParameter(f"a header is NAME:VALUE, got {pair!r}", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers
