"""`clipserve evaluate`: measure the accuracy of models on labelled videos."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer
from rich.console import Console

from clipserve.commands.options import ParallelOption, RetrySecondsOption, ServerOptions, spread_options
from clipserve.commands.output import check_folders, print_error, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.evaluation.class_folders import read_labelled
from clipserve.evaluation.ground_truth import LabelledSource
from clipserve.evaluation.report import HTML_MODULES, Report
from clipserve.evaluation.run import EvaluationOptions, EvaluationRun, UnknownLabels, check_installed, execute_all
from clipserve.extras import load
from clipserve.options import RunArguments, SamplingOptions

STDOUT = "-"
PIPE_COLUMNS = 80  # a pipe has no width of its own

JsonOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Write the report as JSON; - prints the JSON in place of the tables.", show_default=False
    ),
]
HtmlOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write the report as a page with plots.", show_default=False)
]


@spread_options
def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="Folders with a folder of videos for each class, or lists: CSV with the columns path and label, or"
            " JSON lines with these keys.",
        ),
    ],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A model of the server. Repeat the option to compare models; the first one is the baseline.",
            show_default=Connection.model,
        ),
    ] = None,
    json: JsonOption = None,
    html: HtmlOption = None,
    unknown_labels: Annotated[
        UnknownLabels,
        typer.Option(help="If the model does not have a true label as a class: stop, or count it as missed."),
    ] = "raise",
    parallel: ParallelOption = RunArguments.parallel,
    retry_seconds: RetrySecondsOption = None,
    frames: SamplingOptions,
    server: ServerOptions,
) -> None:
    """Measure the accuracy of models on labelled videos.

    \b
    clipserve evaluate labels.csv --model x3d_m
    clipserve evaluate videos/ --model x3d_m
    clipserve evaluate labels.csv --model x3d_s --model x3d_m --html report.html
    clipserve evaluate labels.csv --sampling clip --views 10 --json all.json
    clipserve evaluate labels.csv --json - | jq .metrics.top_1_accuracy

    In labels, an underscore equals a space, and upper or lower case is the same.
    Separate several labels of one video by |. Videos that fail are listed and
    count in no metric.

    Exit code: 0 if every video was classified, 1 if some failed, 2 if nothing
    could be measured, for example without labels, server or model.
    """
    models = list(dict.fromkeys(model or [Connection.model]))
    check_folders({"--json": json, "--html": html})
    try:
        load_modules(html)
        options = EvaluationOptions(
            **vars(frames), parallel=parallel, retry_seconds=retry_seconds, unknown_labels=unknown_labels
        )
        with ExitStack() as stack:
            runs = [
                EvaluationRun(name, stack.enter_context(server.open_classifier(name)), server.url, options)
                for name in models
            ]
            source = LabelledSource.read(read_labelled(sources))
            report = execute_all(runs, source) if len(runs) > 1 else runs[0].execute(source)
        write_reports(report, json, html)
    except ClipserveError as error:
        print_error(error)
        raise typer.Exit(2) from error
    if report.failed:
        raise typer.Exit(1)


def load_modules(html: str | None) -> None:
    """Load what a report needs before the work begins. Raises InvalidRequest."""
    check_installed()
    for module in HTML_MODULES if html else ():
        load(module, "evaluation")


def write_reports(report: Report, json: str | None, html: str | None) -> None:
    """Print the tables, or the JSON if it goes to stdout; write the files, each also if another one fails."""
    writes: list[Callable[[], object]] = []
    if json == STDOUT:
        writes.append(lambda: sys.stdout.write(report.to_json()))
    else:
        writes.append(lambda: report.show(Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)))
        writes += [partial(report.to_json, json)] if json else []
    writes += [partial(report.to_html, html)] if html else []
    failed = False
    for write in writes:
        try:
            write()
        except OSError as error:
            tell(f"error: cannot write the report: {error}")
            failed = True
    if failed:
        raise typer.Exit(2)
