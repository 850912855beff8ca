"""`clipserve timeline`: when which action happens in long videos."""

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from clipserve.classifier import VideoClassifier
from clipserve.commands.given_sources import GivenSources
from clipserve.commands.journals import continue_journal
from clipserve.commands.options import (
    JobRetrySecondsOption,
    ModelOption,
    ServerOptions,
    ShardOption,
    SourcesArgument,
    make_option,
    spread_options,
)
from clipserve.commands.output import print_error, print_json, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.jobs.job import RETRY_SECONDS, Shard, describe_settings
from clipserve.names import make_printable
from clipserve.runs.summary import SERVER_WIDE_ERRORS
from clipserve.sources.entries import Entries
from clipserve.sources.remote_paths import hide_secrets
from clipserve.timeline.formats import FORMATS, VideoSegments, describe_segment, require_one
from clipserve.timeline.job import run_job
from clipserve.timeline.many import Part, TimelineRow
from clipserve.timeline.options import TimelineOptions, TimelineRunArguments
from clipserve.timeline.output_plan import OutputPlan
from clipserve.timeline.segments import SegmentOptions
from clipserve.timeline.window_file import VideoTimeline, WindowFile, gather
from clipserve.timeline.window_lines import Record, describe_row


@spread_options
def timeline(
    sources: SourcesArgument,
    *,
    model: ModelOption = Connection.model,
    windows: TimelineOptions,
    as_segments: Annotated[bool, typer.Option("--segments", help="Write segments in place of windows.")] = False,
    joining: SegmentOptions,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Append each window as CSV or JSON lines. The same command continues where it stopped. With"
            " --segments, or a name that ends in .vtt, .elan.csv, .via.csv or .json (FiftyOne): write the segments at"
            " the end. In a store, give a folder, such as s3://bucket/windows; the command writes a new file of JSON"
            " lines into it each minute, and other formats at the end.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FORMATS),
            help="The format of --out, if its name does not determine it. In a folder: one file for each video.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Write an HTML page that shows the timelines and plays the videos.", show_default=False
        ),
    ] = None,
    png: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write an image of the timelines.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    shard: ShardOption = "1/1",
    parallel: Annotated[int, make_option(TimelineRunArguments, "parallel", min=1)] = TimelineRunArguments.parallel,
    retry_seconds: JobRetrySecondsOption = RETRY_SECONDS,
    server: ServerOptions,
) -> None:
    """Find out when which action happens in long videos.

    \b
    clipserve timeline match.mp4
    clipserve timeline match.mp4 --window 2 --step 1 --out timeline.csv --html timeline.html
    clipserve timeline match.mp4 --out match.vtt
    clipserve timeline matches/ --out windows.jsonl --parallel 4
    clipserve timeline matches/ --segments --enter 0.6 --min-length 2 --out segments.csv
    clipserve timeline match.mp4 --json | jq -r '[.start, .labels[0].label] | @tsv'

    The server labels each window of a video. A segment joins windows of one
    label. Without --out and --json, the command prints a table of segments.

    With --out, no window is lost when the program or the server stops. The
    same command continues with the next window. For formats that are written
    at the end, FILE.windows.jsonl keeps the windows. Files may be in a store,
    such as s3://bucket/match.vtt.

    Exit code: 0 if every video was classified to its end, 1 if some failed,
    2 if the server does not answer or does not have the model, the sources
    have no video, or the output cannot be written.
    """
    given = GivenSources(sources)
    plan = OutputPlan(out, format, html, png, windows, joining, as_segments=as_segments, as_json=as_json)
    if out:
        given.check_repeatable()
    with server.open_classifier(model) as classifier:
        try:
            share = Shard.parse(shard)
            if plan.journal:
                fine = write_file(classifier, given.read(), plan, share, parallel, retry_seconds)
            else:
                fine = show_rows(classifier, share.select(given.read()), plan, parallel)
            given.finish()
        except (ClipserveError, OSError) as error:
            print_error(error)
            raise typer.Exit(2) from error
    if not fine:
        raise typer.Exit(1)


def write_file(
    classifier: VideoClassifier, entries: Entries, plan: OutputPlan, shard: Shard, parallel: int, retry_seconds: float
) -> bool:
    """Continue a file of windows, and write what is made of it. Returns whether no video of it failed."""
    assert plan.out is not None
    assert plan.journal is not None
    selected = shard.select(enumerate(entries))
    if plan.is_for_one_video:  # before hours of work, and not when the file is written
        selected = require_one(selected, plan.out)
    file = WindowFile(plan.journal, describe_settings(classifier.model, shard, plan.windows), plan.windows.top_k)

    def work() -> None:
        run_job(
            classifier,
            selected,
            file,
            options=plan.windows,
            parallel=parallel,
            retry_seconds=retry_seconds,
            on_failure=print_error,
        )
        plan.write(file)

    return continue_journal(file, work, name=hide_secrets(plan.out), failed="videos failed")


def show_rows(classifier: VideoClassifier, entries: Entries, plan: OutputPlan, parallel: int) -> bool:
    """Print windows as they come, or tables of segments and messages at the end. Returns whether no video failed."""
    # A bar and lines on one terminal would write over each other.
    progress = False if plan.as_json and sys.stdout.isatty() else None
    arguments = TimelineRunArguments((), parallel=parallel, progress=progress, **plan.windows.settings())
    kept: list[VideoTimeline] = []
    tables: list[VideoSegments] = []
    errors: list[ClipserveError] = []
    rows = classifier.continue_timelines((Part(*item) for item in enumerate(entries)), arguments)
    try:
        with rows:
            for timeline in gather(_follow(rows, plan, errors)):
                if not plan.as_json:
                    if timeline.has_answer:
                        tables.append(plan.join(timeline))
                elif plan.as_segments:
                    for one in plan.join(timeline).segments:
                        print_json({"video": timeline.video, **describe_segment(one)})
                if plan.has_pictures:
                    kept.append(timeline)
    finally:
        for table in tables:
            print_table(table)
        for error in errors:
            print_error(error)
    plan.draw(lambda: iter(kept))
    return rows.summary.failures == 0


def _follow(rows: Iterable[TimelineRow], plan: OutputPlan, errors: list[ClipserveError]) -> Iterator[Record]:
    """Records of the rows, for the segments; prints each row that is to be printed now. Adds to `errors`."""
    for row in rows:
        if row.error is not None:
            if isinstance(row.error, SERVER_WIDE_ERRORS):
                raise row.error
            errors.append(row.error)
        if plan.as_json and not plan.as_segments:
            print_json(describe_row(row))
            if not plan.has_pictures:
                continue
        yield Record.of(row)


def print_table(video: VideoSegments) -> None:
    """The segments of a video."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("start", "end", "label", "score", title=Text(make_printable(video.video)), title_justify="left")
    for number in (0, 1, 3):
        table.columns[number].justify = "right"
    for one in video.segments:
        times = (f"{one.start_seconds:.1f} s", f"{one.end_seconds:.1f} s")
        table.add_row(*times, Text(make_printable(one.label)), f"{one.score:.2f}")
    if not video.segments:
        tell(f"{video.video}: no label reaches the score of --enter")
    else:
        Console().print(table)
