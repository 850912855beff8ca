"""Classify a source into a file of results, in as many runs as it takes, and share a source between machines."""

import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from clipserve.classifier import VideoClassifier
from clipserve.errors import InvalidRequest
from clipserve.jobs.result_file import ResultFile
from clipserve.options import RequestOptions, RunArguments
from clipserve.retry import RETRIED_ERRORS
from clipserve.sources.entries import Entry
from clipserve.sources.source import Source, read_entries

RETRY_SECONDS = 600.0  # how long to wait for a server that is away, for example during an update

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` parts of a source: every count-th entry, so that long folders are mixed.

    Every machine sees the same entries in the same order, and each entry belongs to one shard.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InvalidRequest(f"a shard must be I/N with I from 1 to N, such as 2/4; got {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/4". Raises InvalidRequest."""
        if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)):
            raise InvalidRequest(f"a shard must be I/N with I from 1 to N, such as 2/4; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def select(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items that belong to this shard."""
        return itertools.islice(items, self.number - 1, None, self.count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


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
    """Write a row for each video of the source that has no row in the file yet, in the order of the source.

    Each run reads the source from its beginning.

    Raises:
        ServerUnavailable, ServerBusy, ModelNotReady: the server was away for longer than `retry_seconds`. The rows that
            are done are in the file.
        UnknownModel, AccessDenied: no video can be classified.
        InvalidRequest: the source is not the one that the file was started with.
    """
    numbers: deque[int] = deque()

    def read_missing() -> Iterator[Entry]:
        for number, entry in file.select_missing(shard.select(enumerate(read_entries(source)))):
            numbers.append(number)
            yield entry

    stream = classifier.classify_many(
        read_missing(), parallel=parallel, progress=progress, retry_seconds=retry_seconds, **options.settings()
    )
    with stream:
        for row in stream:
            if isinstance(row.error, RETRIED_ERRORS):  # about the server, not about this video: no row for it
                raise row.error
            file.append(numbers.popleft(), row)


def describe_settings(model: str, shard: Shard, options: RequestOptions) -> dict[str, object]:
    """The settings that the rows depend on, which must stay the same while a file grows: no addresses, no deadlines."""
    return {"model": model, "shard": str(shard), **options.settings()}
