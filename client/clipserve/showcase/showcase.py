"""Serves the page until a `with` block ends."""

import contextlib
import functools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.classifier import VideoClassifier
from clipserve.connection import DEFAULT_URL, Connection, Tls, check_urls
from clipserve.errors import InvalidRequest
from clipserve.extras import load
from clipserve.proxies import except_loopback
from clipserve.showcase.fit_tab import FitTab, check_fitting
from clipserve.showcase.model_server import ModelServer, OpenClassifier, choose_model
from clipserve.showcase.page import build_page
from clipserve.showcase.samples import open_samples

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
PORT = 7860
# The page is for single videos. Programs with large ones use the SDK.
MOST_UPLOAD_BYTES = 200 * 1024 * 1024
# Requests that may wait for their turn. The page refuses the next one and asks the visitor to try again.
MOST_WAITING = 32

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Showcase:
    """A page that is being served.

    Attributes:
        address: address of the page for a browser on this machine.
        shared_address: the public address, with share=True.
    """

    address: str
    shared_address: str | None = None

    def wait(self) -> None:
        """Wait for Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


@contextlib.contextmanager
def open_showcase(
    url: str | Sequence[str] = DEFAULT_URL,
    *,
    model: str | None = None,
    samples: str | os.PathLike[str] | None = None,
    host: str = HOST,
    port: int = PORT,
    share: bool = False,
    open_browser: bool = False,
    fit_repository: str | os.PathLike[str] | None = None,
    timeout_seconds: float = Connection.timeout_seconds,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Showcase]:
    """Serve the page until the `with` block ends.

    Args:
        url: host:port of the clipserve server's gRPC port, or several, as for `VideoClassifier`.
        model: the model that the page starts with; None: the client's default, or the server's first one. The only
            model if the server does not list its models.
        samples: folder of videos to pick from; None: generated motions, if the server has the model `motion`.
        host, port: where to serve the page; port 0 is any free port.
        share: also serve it at a public address, through Gradio's tunnel, for a week. Everybody who knows the address
            can use the page.
        open_browser: open the page in the browser of this machine.
        fit_repository: let visitors fit models to videos of their own, and publish them in this model repository, which
            is the server's; None: they cannot. Not with `share`.
        timeout_seconds, tls, headers: as for `VideoClassifier`.

    Raises:
        InvalidRequest: an argument is not allowed, or gradio is not installed.
        AccessDenied: the server does not list its models, and `model` is None.
        ServerError: no server answers at `url`.
    """
    open_classifier = functools.partial(
        VideoClassifier, url=url, timeout_seconds=timeout_seconds, tls=tls, headers=headers
    )
    with serve_page(
        open_classifier,
        url=check_urls("url", url),
        model=model,
        samples=Path(samples) if samples else None,
        host=host,
        port=port,
        share=share,
        open_browser=open_browser,
        fit_repository=Path(fit_repository) if fit_repository else None,
        tls=tls,
        headers=headers,
    ) as showcase:
        yield showcase


@contextlib.contextmanager
def serve_page(
    open_classifier: OpenClassifier,
    *,
    url: str,
    model: str | None,
    samples: Path | None,
    host: str,
    port: int,
    share: bool,
    open_browser: bool,
    fit_repository: Path | None,
    tls: Tls | None,
    headers: Mapping[str, str] | None,
) -> Iterator[Showcase]:
    """Like `open_showcase`, with a function that makes classifiers. Raises what `open_showcase` raises.

    tls, headers: for the server to load what visitors fit.
    """
    gr = import_gradio()
    if fit_repository:
        if share:
            raise InvalidRequest("visitors of a public page must not publish models: share it, or let them fit")
        check_fitting(fit_repository)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ModelServer(open_classifier, url, named=model))
        models = server.models()
        # Only the model `motion` knows the generated motions.
        generated = samples is None and "motion" in models and model in (None, "motion")
        if generated:
            model = "motion"
        choose_model(models, model)
        listed = stack.enter_context(open_samples(samples)) if samples or generated else []
        fit_tab = FitTab(server, fit_repository, tls=tls, headers=headers) if fit_repository else None
        blocks = build_page(server, samples=listed, model=model, fit_tab=fit_tab)
        blocks.queue(max_size=MOST_WAITING, api_open=False)
        address, shared = _launch(
            gr, blocks, host=host, port=port, share=share, open_browser=open_browser,
            allowed=[str(sample.path) for sample in listed],
        )  # fmt: skip
        stack.callback(blocks.close, verbose=False)
        yield Showcase(address.rstrip("/"), shared)


def import_gradio() -> Any:
    """The package gradio, without its usage reports. Raises InvalidRequest if it is not installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    return load("gradio", "showcase")


def _launch(
    gr: Any, blocks: "gradio.Blocks", *, host: str, port: int, share: bool, open_browser: bool, allowed: list[str]
) -> tuple[str, str | None]:
    # Fonts of this machine, because the default ones come from Google's servers.
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["ui-sans-serif", "system-ui", "Segoe UI", "Liberation Sans", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
        radius_size="lg",
    ).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",
        block_radius="14px",
        block_shadow="none",
        block_border_width="1px",
        block_label_border_width="0",
        button_large_radius="10px",
    )
    host = host.strip("[]")
    try:
        with _without_proxy():
            _, address, shared = blocks.launch(
                server_name=f"[{host}]" if ":" in host else host,  # it becomes a part of an address
                server_port=port or _free_port(host),
                share=share,
                inbrowser=open_browser,
                inline=False,
                quiet=True,
                prevent_thread_lock=True,
                show_error=False,
                max_file_size=MOST_UPLOAD_BYTES,
                allowed_paths=allowed,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                theme=theme,
                css_paths=[FOLDER / "page.css"],
            )
    except OSError as error:
        raise InvalidRequest(
            f"the page cannot be served at {host}:{port}: {error}. Choose another --host or --port."
        ) from error
    return address, shared


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Exempt this machine from the proxies of the environment: `launch` requests the page to see whether it is up."""
    exceptions = except_loopback(os.environ)
    before = {name: os.environ.get(name) for name in exceptions}
    os.environ.update(exceptions)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as claim:
        claim.bind((host, 0))
        return int(claim.getsockname()[1])
