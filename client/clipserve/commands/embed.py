"""`clipserve embed`: feature vectors of videos, in one file."""

from collections.abc import Iterator
from typing import Annotated

import typer

from clipserve.commands.given_sources import GivenSources
from clipserve.commands.options import (
    ModelOption,
    ParallelOption,
    RetrySecondsOption,
    ServerOptions,
    ShardOption,
    SourcesArgument,
    spread_options,
)
from clipserve.commands.output import print_error, tell
from clipserve.connection import Connection
from clipserve.errors import ClipserveError
from clipserve.jobs.job import Shard
from clipserve.options import EmbedArguments, SamplingOptions
from clipserve.results import Row
from clipserve.runs.streams import RowStream
from clipserve.runs.summary import SERVER_WIDE_ERRORS
from clipserve.tables.embeddings import write_vectors


@spread_options
def embed(
    sources: SourcesArgument,
    *,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The file to write: .npy (a .csv beside it names the rows) or .parquet. It may be in a store, such as"
            " s3://bucket/features.parquet.",
            show_default=False,
        ),
    ],
    model: ModelOption = Connection.model,
    frames: SamplingOptions,
    shard: ShardOption = "1/1",
    parallel: ParallelOption = EmbedArguments.parallel,
    retry_seconds: RetrySecondsOption = None,
    server: ServerOptions,
) -> None:
    """Write the feature vectors of videos into a file, float32, one row for each video.

    \b
    clipserve embed videos/ --out features.npy
    clipserve embed labels.csv --out features.parquet --model mvit_base_16x4

    Videos that fail are reported on stderr and left out.

    Exit code: 0 if every video has a vector, 1 if some failed, 2 if the server
    does not answer or does not have the model, the sources have no video, or
    the file cannot be written.
    """
    given = GivenSources(sources)
    with server.open_classifier(model) as classifier:
        try:
            entries = Shard.parse(shard).select(given.read())
            stream = classifier.classify_many(
                entries,
                parallel=parallel,
                retry_seconds=retry_seconds,
                top_k=EmbedArguments.top_k,
                features=True,
                **vars(frames),
            )
            with stream:
                count = write_vectors(_report_failures(stream, given), out)
        except (ClipserveError, OSError) as error:
            print_error(error)
            raise typer.Exit(2) from error
    remark = f", {stream.summary.truncated} of them truncated" if stream.summary.truncated else ""
    tell(f"{out}: {count} vectors{remark}; {stream.summary.failures} failed")
    if stream.summary.failures:
        raise typer.Exit(1)


def _report_failures(stream: RowStream, given: GivenSources) -> Iterator[Row]:
    for row in stream:
        if isinstance(row.error, SERVER_WIDE_ERRORS):
            raise row.error
        if row.error is not None:
            print_error(row.error)
        yield row
    given.finish()  # now, so that an older file stays where the sources have no video
