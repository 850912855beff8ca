"""Classifying a source into a file, in as many runs of the program as it takes."""

from collections import deque
from collections.abc import Iterator

from clipserve.classifier import VideoClassifier
from clipserve.errors import InvalidRequest, ModelNotReady, ServerBusy, ServerUnavailable
from clipserve.jobs.result_files import ResultFile
from clipserve.jobs.shards import Shard
from clipserve.options import RequestOptions, RunArguments
from clipserve.sources.entries import Entry
from clipserve.sources.source import Source, read_entries

RETRY_SECONDS = 600.0  # how long to wait for a server that is away, such as one that is replaced by a newer one

# The server, not a video: these never become rows of a file that is to be gone on with.
AWAY = (ServerUnavailable, ServerBusy, ModelNotReady)


def run_job(
    classifier: VideoClassifier,
    source: Source,
    file: ResultFile,
    *,
    shard: Shard,
    options: RequestOptions,
    parallel: int = RunArguments.parallel,
    progress: bool | None = None,
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """Write a row for each video of the source that the file does not have yet, in the order of the source.

    The source is read from its beginning each time, and must not have changed but at its end.

    Raises:
        ServerUnavailable, ServerBusy, ModelNotReady: the server was away for longer than `retry_seconds`. What is done
            is in the file.
        UnknownModel, AccessDenied: no video can be classified.
        InvalidRequest: the source is not what the file was begun with.
    """
    numbers: deque[int] = deque()

    def read_missing() -> Iterator[Entry]:
        found = 0
        rows = file.rows
        for number, entry in shard.select(enumerate(read_entries(source))):
            if file.has(number, entry.spelt_id):
                found += 1
            else:
                numbers.append(number)
                yield entry
        if found < rows:
            raise InvalidRequest(
                f"{str(file.path)!r} has rows of videos that are not in the source any more: begin another --out"
            )

    stream = classifier.classify_many(
        read_missing(), parallel=parallel, progress=progress, retry_seconds=retry_seconds, **options.settings()
    )
    with stream:
        for row in stream:
            if isinstance(row.error, AWAY):
                raise row.error
            file.append(numbers.popleft(), row)


def describe_settings(model: str, shard: Shard, options: RequestOptions) -> dict[str, object]:
    """What must stay the same while a file grows: everything that its rows depend on, and no addresses or deadlines."""
    return {"model": model, "shard": str(shard), **options.settings()}
