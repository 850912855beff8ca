"""`clipserve evaluate-timelines`: measure the accuracy of timelines."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clipserve.commands.options import ModelOption, ServerOptions, make_option, spread_options
from clipserve.commands.output import check_folders, print_error, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.timeline.evaluation import evaluate_timelines as run_evaluation
from clipserve.timeline.options import TimelineOptions, TimelineRunArguments
from clipserve.timeline.output_plan import check_extras
from clipserve.timeline.segments import SegmentOptions
from clipserve.timeline.truth import Truth

STDOUT = "-"


@spread_options
def evaluate_timelines(
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH.csv", help="CSV with the columns path, start, end (in seconds), label.")
    ],
    *,
    model: ModelOption = Connection.model,
    windows: TimelineOptions,
    joining: SegmentOptions,
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the result as JSON; - prints the JSON in place of the table.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write an HTML page with the true and the predicted timeline of each video.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[int, make_option(TimelineRunArguments, "parallel", min=1)] = TimelineRunArguments.parallel,
    server: ServerOptions,
) -> None:
    """Measure the accuracy of timelines on labelled videos.

    \b
    clipserve evaluate-timelines truth.csv --model x3d_m
    clipserve evaluate-timelines truth.csv --enter 0.3 --overlap --html report.html
    clipserve evaluate-timelines truth.csv --json - | jq .average

    Prints the mean average precision at temporal IoU 0.3 to 0.7, as ActivityNet
    measures it. Paths in TRUTH.csv are relative to it. A line with only a path
    is a video without segments. In labels, an underscore equals a space, and
    upper or lower case is the same.

    Exit code: 0 if every video has a timeline, 1 if some failed, 2 if nothing
    could be measured, for example without segments, server or model.
    """
    check_folders({"--json": json, "--html": html})
    check_extras(html)
    try:
        true = Truth.read(truth)
        with server.open_classifier(model) as classifier:
            result = run_evaluation(classifier, true, windows, joining, parallel=parallel)
        if json == STDOUT:
            sys.stdout.write(result.to_json())
        else:
            result.show()
        if json not in (None, STDOUT):
            result.to_json(json)
        if html:
            result.to_html(html)
    except (ClipserveError, OSError) as error:
        print_error(error)
        raise typer.Exit(2) from error
    for video in result.videos:
        if video.error:
            tell(f"error: {video.error}")
    if result.failed:
        raise typer.Exit(1)
