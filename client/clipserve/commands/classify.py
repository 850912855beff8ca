"""`clipserve classify`: name the actions in videos."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from clipserve import defaults
from clipserve.batches import tally
from clipserve.batches.tally import OnError
from clipserve.classifier import VideoClassifier
from clipserve.commands.asking import Asking, ParallelOption, SourcesArgument
from clipserve.commands.connection import Connection, ModelOption
from clipserve.commands.given_sources import GivenSources
from clipserve.commands.option_groups import spread_options
from clipserve.commands.output import JsonLines, Output, TableAtEnd, print_error, tell
from clipserve.errors import ClipserveError, ModelNotReady, ServerUnavailable
from clipserve.jobs.job import AWAY, describe_settings, run_job
from clipserve.jobs.result_files import ResultFile
from clipserve.jobs.shards import Shard
from clipserve.question import Options
from clipserve.sources.entries import Entry
from clipserve.sources.reading import Source
from clipserve.sources.records import JSON_LINES

# These would fail every video alike, so they are reported once.
HOPELESS = (*tally.HOPELESS, ServerUnavailable, ModelNotReady)


@spread_options
def classify(
    sources: SourcesArgument,
    *,
    model: ModelOption = defaults.MODEL,
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to show.")] = defaults.TOP_K,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    features: Annotated[bool, typer.Option("--features", help="With --json or --out: add the embedding.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="With --json or --out: add what the server did with the video.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Append a line of JSON for each video. Started again, go on where it was.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Take every N-th video, from the I-th on.", show_default=False)
    ] = "1/1",
    parallel: ParallelOption = defaults.PARALLEL,
    on_error: Annotated[
        OnError, typer.Option(help="Show a video that fails, stop at it, or only tell of it.")
    ] = "keep",
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="With --out: longest wait for a server that is away.")
    ] = defaults.JOB_PATIENCE_SECONDS,
    asking: Asking,
    connection: Connection,
) -> None:
    """Name the human actions in videos.

    \b
    clipserve classify archery.mp4
    clipserve classify videos/ --model mvit_base_16x4 --top-k 1
    clipserve classify *.mp4 --json | jq -r '[.file, .labels[0].label] | @tsv'
    clipserve classify labels.csv --out results.jsonl --parallel 8
    clipserve classify labels.csv --out results.2.jsonl --shard 2/4
    clipserve classify archery.mp4 --url video.example.org:443 --tls
    curl -s https://example.org/a.mp4 | clipserve classify -

    With --out, rows survive whatever ends the program or the server. The same
    command goes on where it was; failures that are not about the video itself
    are tried again. A server that restarts is waited for.

    Exits with 0 if every video was classified, 1 if some were not,
    2 if the server cannot be reached or has no such model, there is no video
    in the sources, or the output cannot be written.
    """
    given = GivenSources(sources)
    if (features or report) and not (as_json or out):
        raise typer.BadParameter("a table has no room for it; add --json, or --out", param_hint="--features/--report")
    if out and (as_json or on_error != "keep"):
        raise typer.BadParameter(
            "a file has every row, failures among them, and nothing is printed: leave out --json and --on-error",
            param_hint="--out",
        )
    if out and given.has_standard_input:
        raise typer.BadParameter(
            "standard input cannot be read again when the job goes on: give a file, or leave out --out",
            param_hint="--out",
        )
    if out and out.suffix.lower() not in JSON_LINES:
        raise typer.BadParameter(
            f"rows are written as JSON lines, so the file ends in {' or '.join(JSON_LINES)}; got {str(out)!r}",
            param_hint="--out",
        )
    options: Options = {**asking.options(), "top_k": top_k, "features": features, "report": report}
    classifier = connection.open_classifier(model)
    with classifier:
        try:
            share = Shard.parse(shard)
            if out:
                fine = write_file(classifier, given.read(), out, share, parallel, patience, options)
            else:
                entries = share.select(given.read())
                output: Output = JsonLines() if as_json else TableAtEnd(model)
                fine = show_rows(classifier, entries, output, parallel, on_error, options)
            given.finish()
        except ClipserveError as error:
            print_error(error)
            raise typer.Exit(2) from error
    if not fine:
        raise typer.Exit(1)


def show_rows(
    classifier: VideoClassifier,
    entries: Iterator[Entry],
    output: Output,
    parallel: int,
    on_error: OnError,
    options: Options,
) -> bool:
    """Show each row as it comes; gives whether all went well."""
    # A bar and lines on one terminal would write over each other.
    progress = None if isinstance(output, TableAtEnd) or not sys.stdout.isatty() else False
    stream = classifier.classify_many(entries, parallel=parallel, progress=progress, **options)
    fine = True
    with output, stream:
        try:
            for row in stream:
                if isinstance(row.error, HOPELESS):
                    raise row.error
                fine = fine and row.error is None
                if row.error is None or on_error != "drop":
                    output.show(row)
                else:
                    print_error(row.error)
                if row.error is not None and on_error == "raise":
                    break
        except HOPELESS as error:
            output.show_end(error)
            raise typer.Exit(2) from error
    return fine


def write_file(
    classifier: VideoClassifier,
    source: Source,
    path: Path,
    shard: Shard,
    parallel: int,
    patience_seconds: float,
    options: Options,
) -> bool:
    """Go on with a file of results; gives whether every row of it is a success."""
    rows = 0
    try:
        with ResultFile(path, describe_settings(classifier.model, shard, options)) as file:
            rows = before = file.rows
            try:
                run_job(
                    classifier,
                    source,
                    file,
                    shard=shard,
                    parallel=parallel,
                    patience_seconds=patience_seconds,
                    **options,
                )
            finally:
                rows = file.rows
            tell(f"{path}: {rows} rows, {rows - before} of them new, {file.failures} failed")
            return file.failures == 0
    except (*AWAY, OSError) as error:
        print_error(error)
        tell(f"{path}: {rows} rows; the same command goes on from here")
        raise typer.Exit(2) from error
