"""`clipserve fit`: a model of your own classes, from labelled videos."""

from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import ParallelOption, RetrySecondsOption, ServerOptions, make_option, spread_options
from clipserve.commands.output import check_folders, print_error
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.evaluation.command import HtmlOption, JsonOption, load_modules, write_reports
from clipserve.fitting.run import REPOSITORY, FitOptions, FitRun
from clipserve.options import RunArguments, SamplingOptions


@spread_options
def fit(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCES...",
            help="Labelled videos: a folder with one folder for each class, or lists (CSV with the columns path and"
            " label, or JSON lines with these keys).",
            show_default=False,
        ),
    ] = None,
    *,
    on: Annotated[
        str,
        typer.Option(metavar="NAME", help="The base model: a model of the server, whose features the new model uses."),
    ] = Connection.model,
    name: Annotated[str, typer.Option(metavar="NAME", help="The name of the new model.", show_default=False)],
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Use the features in this file of `clipserve embed` (.npy or .parquet). Rows match by id. The file"
            " may also have the labels.",
            show_default=False,
        ),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish/--no-publish", help="Publish the model and let the server load it, or only print the report."
        ),
    ] = True,
    version: Annotated[int | None, make_option(FitOptions, "version", min=1)] = None,
    repository: Annotated[
        Path, typer.Option(metavar="DIR", help="The Triton model repository that the server serves.")
    ] = REPOSITORY,
    json: JsonOption = None,
    html: HtmlOption = None,
    parallel: ParallelOption = RunArguments.parallel,
    retry_seconds: RetrySecondsOption = None,
    frames: SamplingOptions,
    server: ServerOptions,
) -> None:
    """Fit a model to your own classes, on the features of a served model.

    \b
    clipserve fit videos/ --on x3d_m --name my_actions
    clipserve fit labels.csv --on x3d_m --name my_actions --html report.html
    clipserve fit labels.csv --on x3d_m --name my_actions --features features.npy
    clipserve classify clip.mp4 --model my_actions

    Prints the accuracy on held-out videos with its 95 % interval, the metrics
    of each class, the learning curve and the calibration. Then publishes the
    model with its labels in the repository, and the server loads it. A second
    fit publishes version 2; `clipserve versions` rolls back.

    Exit code: 0 if the server has loaded the model and every video was used,
    1 if some videos were left out, or the model could not be published or
    loaded, 2 if there is no report.
    """
    from rich.console import Console

    check_folders({"--json": json, "--html": html})
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        load_modules(html)
        options = FitOptions(
            **vars(frames),
            features=features,
            publish=publish,
            version=version,
            repository=repository,
            parallel=parallel,
            retry_seconds=retry_seconds,
        )
        with console.status("embedding the videos") as status:
            if console.is_terminal:
                status.stop()  # the run shows its own bar

            def report_step(step: str) -> None:
                status.start()
                status.update(step)

            run = FitRun(
                on,
                name,
                server.open_classifier,
                server.url,
                options,
                report_step,
                tls=server.choose_tls(),
                headers=server.read_headers(),
            )
            fitted = run.execute(sources or None)
        write_reports(fitted, json, html)
    except ClipserveError as error:
        print_error(error)
        raise typer.Exit(2) from error
    served = fitted.publication is None or (fitted.publication.loaded and fitted.publication.agrees)
    if fitted.failed or not served:
        raise typer.Exit(1)
