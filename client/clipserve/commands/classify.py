"""`clipserve classify`: name the actions in videos."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clipserve.classifier import VideoClassifier
from clipserve.commands.given_sources import GivenSources
from clipserve.commands.journals import continue_journal
from clipserve.commands.options import (
    JobRetrySecondsOption,
    ModelOption,
    ParallelOption,
    ServerOptions,
    ShardOption,
    SourcesArgument,
    make_option,
    spread_options,
)
from clipserve.commands.output import JsonLines, Output, TableAtEnd, print_error, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.jobs.job import RETRY_SECONDS, Shard, describe_settings, run_job
from clipserve.jobs.result_file import ResultFile
from clipserve.options import OnError, RequestOptions, RunArguments
from clipserve.runs.summary import SERVER_WIDE_ERRORS
from clipserve.sources.entries import Entries
from clipserve.sources.lists import JSON_LINES
from clipserve.sources.remote_paths import is_remote


@spread_options
def classify(
    sources: SourcesArgument,
    *,
    model: ModelOption = Connection.model,
    request: RequestOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Append a line of JSON for each video. The same command continues where it stopped. In a store, give a"
            " folder, such as s3://bucket/results; the command writes a new file into it each minute.",
            show_default=False,
        ),
    ] = None,
    shard: ShardOption = "1/1",
    parallel: ParallelOption = RunArguments.parallel,
    on_error: Annotated[OnError, make_option(RunArguments, "on_error")] = RunArguments.on_error,
    retry_seconds: JobRetrySecondsOption = RETRY_SECONDS,
    patience: Annotated[float | None, typer.Option(min=0, hidden=True)] = None,
    server: ServerOptions,
) -> None:
    """Name the human actions in videos.

    \b
    clipserve classify archery.mp4
    clipserve classify videos/ --model mvit_base_16x4 --top-k 1
    clipserve classify *.mp4 --json | jq -r '[.video, .labels[0].label] | @tsv'
    clipserve classify labels.csv --out results.jsonl --parallel 8
    clipserve classify labels.csv --out results.2.jsonl --shard 2/4
    clipserve classify archery.mp4 --url video.example.org:443 --tls
    curl -s https://example.org/a.mp4 | clipserve classify -

    --features and --report need --json or --out.

    With --out, no row is lost when the program or the server stops. The same
    command continues where it stopped, and tries failures again that are not
    about the video itself. The command waits for a server that restarts.

    Exit code: 0 if every video was classified, 1 if some failed, 2 if the
    server does not answer or does not have the model, the sources have no
    video, or the output cannot be written.
    """
    if patience is not None:
        tell("warning: --patience is now called --retry-seconds; version 0.3 drops the old name")
        retry_seconds = patience
    given = GivenSources(sources)
    if (request.features or request.report) and not (as_json or out):
        raise typer.BadParameter("the table does not show it: add --json or --out", param_hint="--features/--report")
    if out and (as_json or on_error != "keep"):
        raise typer.BadParameter(
            "the file has every row, also those of failures, and nothing is printed: leave out --json and --on-error",
            param_hint="--out",
        )
    if out:
        given.check_repeatable()
    if out and not is_remote(out) and Path(out).suffix.lower() not in JSON_LINES:
        raise typer.BadParameter(
            f"rows are written as JSON lines, so the name must end in {' or '.join(JSON_LINES)}; got {out!r}",
            param_hint="--out",
        )
    with server.open_classifier(model) as classifier:
        try:
            share = Shard.parse(shard)
            if out:
                fine = write_file(classifier, given.read(), out, share, parallel, retry_seconds, request)
            else:
                output: Output = JsonLines() if as_json else TableAtEnd(model)
                fine = show_rows(classifier, share.select(given.read()), output, parallel, on_error, request)
            given.finish()
        except (ClipserveError, OSError) as error:
            print_error(error)
            raise typer.Exit(2) from error
    if not fine:
        raise typer.Exit(1)


def show_rows(
    classifier: VideoClassifier,
    entries: Entries,
    output: Output,
    parallel: int,
    on_error: OnError,
    request: RequestOptions,
) -> bool:
    """Show each row as it comes. Returns whether every video was classified."""
    # A bar and lines on one terminal would write over each other.
    progress = None if isinstance(output, TableAtEnd) or not sys.stdout.isatty() else False
    stream = classifier.classify_many(entries, parallel=parallel, progress=progress, **request.settings())
    fine = True
    with output, stream:
        try:
            for row in stream:
                if isinstance(row.error, SERVER_WIDE_ERRORS):
                    raise row.error
                fine = fine and row.error is None
                if row.error is None or on_error != "drop":
                    output.show(row)
                else:
                    print_error(row.error)
                if row.error is not None and on_error == "raise":
                    break
        except SERVER_WIDE_ERRORS as error:
            output.show_end(error)
            raise typer.Exit(2) from error
    return fine


def write_file(
    classifier: VideoClassifier,
    entries: Entries,
    path: str,
    shard: Shard,
    parallel: int,
    retry_seconds: float,
    request: RequestOptions,
) -> bool:
    """Continue a file of results, or parts in a store. Returns whether every row is a success."""
    file = ResultFile(path, describe_settings(classifier.model, shard, request))

    def work() -> None:
        run_job(classifier, entries, file, shard=shard, options=request, parallel=parallel, retry_seconds=retry_seconds)

    return continue_journal(file, work, name=file.name, failed="failed")
