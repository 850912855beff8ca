"""`clipserve demo`: the showcase from the command line."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from clipserve.commands.options import ServerOptions, spread_options
from clipserve.errors import AccessDenied, ClipserveError, InvalidRequest, ServerFailed, ServerUnavailable


@spread_options
def demo(
    *,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model to begin with; the page has them all.", show_default=False),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Videos to pick from; generated ones for the model motion.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to serve the page; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: any that is free.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also at a public address, through Gradio's tunnel, for a week.")
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="Start a Triton for the page on this machine; --url does not count then.")
    ] = False,
    repository: Annotated[Path, typer.Option(metavar="DIR", help="With --serve: the Triton model repository.")] = Path(
        "model_repository"
    ),
    server: ServerOptions,
) -> None:
    """Open a page to try the models on: labels, frames and timings of a video.

    \b
    clipserve demo
    clipserve demo --samples videos --model x3d_m
    clipserve demo --serve

    Ends on Ctrl-C.
    """
    from rich.console import Console

    from clipserve.showcase.showcase import import_gradio, serve_page

    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        try:
            import_gradio()  # before a server is started that nobody would use
            if serve:
                with errors.status("starting Triton"):
                    server = stack.enter_context(_serve(repository, server))
            with errors.status("opening the page"):
                showcase = stack.enter_context(
                    serve_page(
                        server.open_classifier,
                        url=server.url,
                        model=model,
                        samples=samples,
                        host=host,
                        port=port,
                        share=share,
                        open_browser=open_browser,
                    )
                )
        except ClipserveError as error:
            errors.print(f"error: {error}", markup=False)
            if isinstance(error, ServerUnavailable):
                errors.print("`clipserve demo --serve` starts one for the page.", markup=False)
            if isinstance(error, AccessDenied) and model is None:
                errors.print("With --model NAME the page does without the list of models.", markup=False)
            raise typer.Exit(2) from error
        console.print(f"the page is at {showcase.address}", markup=False)
        if showcase.shared_address:
            console.print(f"for everybody at {showcase.shared_address}", markup=False)
        console.print("Ctrl-C stops it")
        showcase.wait()
    console.print("stopped")


@contextlib.contextmanager
def _serve(repository: Path, server: ServerOptions) -> Iterator[ServerOptions]:
    """A Triton of our own, and the way to it. Raises ServerError where it does not start."""
    try:
        # By name: the client works without the package that holds the server.
        errors = importlib.import_module("clipserve_server.errors")
        triton = importlib.import_module("clipserve_server.triton")
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"--serve needs {error.name}: pip install 'clipserve[server]'") from error
    triton_server: Any = triton.Triton(repository, http_port=0, grpc_port=0, metrics_port=0)
    try:
        triton_server.start()
    except errors.ServerStartError as error:
        raise ServerFailed(str(error)) from error
    try:
        # It neither encrypts nor asks for credentials.
        yield ServerOptions(url=triton_server.grpc_url, timeout=server.timeout)
    finally:
        triton_server.stop()
