"""The page, served for as long as a `with` block lasts."""

import contextlib
import functools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.classifier import VideoClassifier
from clipserve.connection import Connection, Tls
from clipserve.errors import InvalidRequest
from clipserve.proxies import except_loopback
from clipserve.showcase.inquiry import OpenClassifier, Server, choose_model
from clipserve.showcase.page import build_page
from clipserve.showcase.samples import open_samples

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
PORT = 7860
# A page is for looking at single videos; large ones go through the SDK.
MOST_UPLOAD_BYTES = 200 * 1024 * 1024
# Visitors who wait for their turn; the next one is told to come back.
MOST_WAITING = 32

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Showcase:
    """A page that is being served.

    Attributes:
        address: of the page, for a browser on this machine.
        shared_address: the public one, if it was asked for.
    """

    address: str
    shared_address: str | None = None

    def wait(self) -> None:
        """Return on Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


@contextlib.contextmanager
def open_showcase(
    url: str = Connection.url,
    *,
    model: str | None = None,
    samples: str | os.PathLike[str] | None = None,
    host: str = HOST,
    port: int = PORT,
    share: bool = False,
    open_browser: bool = False,
    timeout_seconds: float = Connection.timeout_seconds,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Showcase]:
    """Serve the page until the block ends.

    Args:
        url: host:port of the clipserve server's gRPC port.
        model: the one to begin with; None: the client's default, or the first there is. Where the server keeps its
            list of models from us, the only one.
        samples: folder of videos to pick from; None: generated motions, where the server has `motion`.
        host, port: to serve the page at; port 0 is any that is free.
        share: also at a public address, through Gradio's tunnel: whoever knows it may use the page for a week.
        open_browser: open the page in this machine's browser.
        timeout_seconds, tls, headers: as `VideoClassifier` takes them.

    Raises:
        InvalidRequest: an argument is not what is allowed, or the package gradio is not there.
        AccessDenied: no model is named, and the server does not list its own.
        ServerError: no server answers at `url`.
    """
    open_classifier = functools.partial(
        VideoClassifier, url=url, timeout_seconds=timeout_seconds, tls=tls, headers=headers
    )
    with serve_page(
        open_classifier,
        url=url,
        model=model,
        samples=Path(samples) if samples else None,
        host=host,
        port=port,
        share=share,
        open_browser=open_browser,
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
) -> Iterator[Showcase]:
    """As `open_showcase`, with whatever makes classifiers. Raises what that one raises."""
    gr = import_gradio()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(open_classifier, url, named=model))
        models = server.models()
        # Generated motions mean something to the model trained on them, and nothing to others.
        generated = samples is None and "motion" in models and model in (None, "motion")
        if generated:
            model = "motion"
        choose_model(models, model)
        listed = stack.enter_context(open_samples(samples)) if samples or generated else []
        blocks = build_page(server, samples=listed, model=model)
        blocks.queue(max_size=MOST_WAITING, api_open=False)
        address, shared = _launch(
            gr, blocks, host=host, port=port or _free_port(host), share=share, open_browser=open_browser,
            allowed=[str(sample.path) for sample in listed],
        )  # fmt: skip
        stack.callback(blocks.close, verbose=False)
        yield Showcase(address.rstrip("/"), shared)


def import_gradio() -> Any:
    """The package, told to report nothing to anybody. Raises InvalidRequest where it is not installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"the showcase needs {error.name}: pip install 'clipserve[showcase]'") from error
    return gradio


def _launch(
    gr: Any, blocks: "gradio.Blocks", *, host: str, port: int, share: bool, open_browser: bool, allowed: list[str]
) -> tuple[str, str | None]:
    # Fonts of this machine: a theme's usual ones come from Google's servers.
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
    try:
        with _without_proxy():
            _, address, shared = blocks.launch(
                server_name=host,
                server_port=port,
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
        raise InvalidRequest(f"the page cannot be served at {host}:{port}: {error}. Choose another --port.") from error
    return address, shared


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Gradio asks its own page whether it is there, and does so through whatever proxy the environment names."""
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
