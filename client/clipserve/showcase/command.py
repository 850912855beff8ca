"""`clipserve demo`: the page from the command line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import ServerOptions, spread_options
from clipserve.errors import AccessDenied, ClipserveError, ServerFailed, ServerUnavailable
from clipserve.extras import load


@spread_options
def demo(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model that the page starts with. Visitors can choose another.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Videos that visitors can choose. Default: generated videos for the model motion.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for every interface.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port of the page; 0: any free port.")
    ] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also open the page to the internet, through Gradio's tunnel, for a week.")
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="Start a Triton on this machine for the page. Ignores --url.")
    ] = False,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="Let visitors fit models to their own videos, and publish the models in --repository. Each fit uses"
            " the server's time and leaves a model, so use it only with visitors whom you trust.",
        ),
    ] = False,
    repository: Annotated[
        Path, typer.Option(metavar="DIR", help="With --serve and --fit: the server's Triton model repository.")
    ] = Path("model_repository"),
    server: ServerOptions,
) -> None:
    """Try models in the browser: a page shows the labels, frames and times of a video.

    \b
    clipserve demo
    clipserve demo --samples videos --model x3d_m
    clipserve demo --serve
    clipserve demo --serve --fit

    Stops on Ctrl-C.
    """
    from rich.console import Console

    from clipserve.showcase.showcase import import_gradio, serve_page

    console = Console(highlight=False, soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with contextlib.ExitStack() as stack:
        try:
            import_gradio()  # fail before a server starts
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
                        fit_repository=repository if fit else None,
                        tls=server.choose_tls(),
                        headers=server.read_headers(),
                    )
                )
        except ClipserveError as error:
            errors.print(f"error: {error}", markup=False)
            if isinstance(error, ServerUnavailable):
                errors.print("Start a server for the page with: clipserve demo --serve", markup=False)
            if isinstance(error, AccessDenied) and model is None:
                errors.print("Give --model NAME: then the page does not need the list of models.", markup=False)
            raise typer.Exit(2) from error
        console.print(f"the page is at {showcase.address}", markup=False)
        if showcase.shared_address:
            console.print(f"the public address is {showcase.shared_address}", markup=False)
        console.print("Ctrl-C stops it")
        showcase.wait()
    console.print("stopped")


@contextlib.contextmanager
def _serve(repository: Path, server: ServerOptions) -> Iterator[ServerOptions]:
    """Start a Triton and yield the connection to it. Raises ServerError if it does not start."""
    errors, triton = load("clipserve_server.errors", "server"), load("clipserve_server.triton", "server")
    try:
        own_server = triton.Triton(repository, http_port=0, grpc_port=0, metrics_port=0)
        own_server.start()
    except errors.ServerStartError as error:
        raise ServerFailed(str(error)) from error
    try:
        # This server neither encrypts nor requires credentials.
        yield ServerOptions(url=own_server.grpc_url, timeout=server.timeout)
    finally:
        own_server.stop()
