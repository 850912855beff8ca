"""`clipserve evaluate`: measure models on videos whose labels are known."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clipserve.commands.options import ParallelOption, ServerOptions, spread_options
from clipserve.commands.output import print_error, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.evaluation.answers import read_labelled
from clipserve.evaluation.comparisons import Comparison
from clipserve.evaluation.evaluating import Trial, UnknownLabels, run_trials
from clipserve.evaluation.evaluations import Evaluation
from clipserve.evaluation.extra import DRAWING, MEASURING, check_installed
from clipserve.options import RunArguments, SamplingOptions
from clipserve.sources.source import read_entries

STDOUT = Path("-")
NARROWEST = 80  # a pipe has no width


@spread_options
def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="LABELS...", help="CSV with the columns path and label, or JSON lines with these keys."),
    ],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A model that the server has. Given several times, the others are held against the first.",
            show_default=Connection.model,
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all there is to know; - prints it instead of the tables.", show_default=False
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with plots.", show_default=False)
    ] = None,
    unknown_labels: Annotated[
        UnknownLabels, typer.Option(help="A label that is no class of the model: stop, or count it as missed.")
    ] = "raise",
    parallel: ParallelOption = RunArguments.parallel,
    frames: SamplingOptions,
    server: ServerOptions,
) -> None:
    """Measure models on videos whose labels are known.

    \b
    clipserve evaluate labels.csv --model x3d_m
    clipserve evaluate labels.csv --model x3d_s --model x3d_m --html report.html
    clipserve evaluate labels.csv --sampling clip --views 10 --json all.json
    clipserve evaluate labels.csv --json - | jq .metrics.top_1_accuracy

    Underscores in labels match spaces, and case does not count; several labels
    of one video are separated by |. Videos that fail are listed and in no figure.

    Exits with 0 if every video was answered, 1 if some were not,
    2 if nothing could be measured: no labels, no server, no such model.
    """
    models = list(dict.fromkeys(model or [Connection.model]))
    for option, path in (("--json", json), ("--html", html)):
        if path not in (None, STDOUT) and not path.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {str(path.parent)!r}", param_hint=option)
    try:
        check_installed(MEASURING + (DRAWING if html else ()))
        with ExitStack() as stack:
            trials = [
                Trial(
                    name=name,
                    classifier=stack.enter_context(server.open_classifier(name)),
                    url=server.url,
                    parallel=parallel,
                    unknown_labels=unknown_labels,
                    options=vars(frames),
                )
                for name in models
            ]
            source = read_labelled(tuple(read_entries(sources)))
            report = run_trials(trials, source) if len(trials) > 1 else trials[0].run(source)
        write_reports(report, json, html)
    except ClipserveError as error:
        print_error(error)
        raise typer.Exit(2) from error
    if report.failed:
        raise typer.Exit(1)


def write_reports(report: Evaluation | Comparison, json: Path | None, html: Path | None) -> None:
    """Write what is asked for, and print the tables."""
    try:
        if json == STDOUT:
            sys.stdout.write(report.to_json())
        else:
            report.show(Console(width=None if sys.stdout.isatty() else NARROWEST))
        if json not in (None, STDOUT):
            report.to_json(json)
        if html:
            report.to_html(html)
    except OSError as error:
        tell(f"error: cannot write the report: {error}")
        raise typer.Exit(2) from error
