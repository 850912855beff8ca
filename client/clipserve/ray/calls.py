"""The videos of many batches, sent in one run: a slow video at the end of a batch holds up no other batch."""

import asyncio
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.cancellation import call_soon
from clipserve.errors import ClipserveError, RequestCancelled
from clipserve.results import Row
from clipserve.retry import RETRIED_ERRORS
from clipserve.runs.iteration import AsyncRowIterator
from clipserve.sources.entries import Entry
from clipserve.sources.videos import VideoSource
from clipserve.timeline.many import TimelineRow

Video: TypeAlias = VideoSource | ClipserveError
AnyRow = TypeVar("AnyRow", Row, TimelineRow)

VERSION_SECONDS = 10.0  # between two questions which version of the model answers


class Batch(Generic[AnyRow]):
    """The rows of the videos of a batch, until all of them are there."""

    def __init__(self, size: int) -> None:
        self.rows: list[list[AnyRow]] = [[] for _ in range(size)]
        self._left = size
        self._error: BaseException | None = None
        self._done = threading.Event()
        if not size:
            self._done.set()

    def end(self) -> None:
        """A video has all of its rows."""
        self._left -= 1
        if not self._left:
            self._done.set()

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self._error = self._error or error
        self._done.set()

    def wait(self) -> list[list[AnyRow]]:
        """The rows of each video, in order. Raises what ended the run."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self.rows


class SharedRun(ABC, Generic[AnyRow]):
    """One run of `AsyncVideoClassifier`, in a thread, which any number of threads give videos to.

    Args:
        options: arguments of the run.
    """

    def __init__(self, make_classifier: Callable[[], AsyncVideoClassifier], options: dict[str, Any]) -> None:
        self._make_classifier = make_classifier
        self._options = options
        self._entries: SimpleQueue[Entry | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._waiting: dict[str, tuple[Batch[AnyRow], int]] = {}
        self._lock = threading.Lock()
        self._ended: BaseException | None = None
        self._cancel: Callable[[], object] = lambda: None
        self.model_version: str | None = None
        self._thread = threading.Thread(target=self._run, name="clipserve calls", daemon=True)
        self._thread.start()

    def ask(self, videos: Sequence[Video]) -> list[list[AnyRow]]:
        """The rows of each video, in order.

        Raises:
            UnknownModel, AccessDenied: no video can be classified.
            ServerUnavailable, ServerBusy, ModelNotReady: the servers were away for too long.
            RequestCancelled: `close` was called.
        """
        batch: Batch[AnyRow] = Batch(len(videos))
        with self._lock:
            if self._ended is not None:
                raise self._ended
            for position, video in enumerate(videos):
                key = str(next(self._numbers))
                self._waiting[key] = batch, position
                self._entries.put(Entry(key, video))
        return batch.wait()

    def close(self) -> None:
        """End the run, and its thread."""
        self._end(RequestCancelled("the actor ended before its videos were classified"))
        self._cancel()  # calls in flight may wait for a server that is away
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @abstractmethod
    def _open(self, classifier: AsyncVideoClassifier, entries: Iterator[Entry]) -> AsyncRowIterator[AnyRow]:
        """Begin the run."""

    @abstractmethod
    def _is_last(self, row: AnyRow) -> bool:
        """Whether no other row of this video follows."""

    def _run(self) -> None:
        try:
            asyncio.run(self._take_rows())
        except BaseException as error:
            self._end(error)

    async def _take_rows(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._cancel = lambda: call_soon(loop, task.cancel)
        async with self._make_classifier() as classifier:
            if self._ended is not None:
                return
            await self._ask_version(classifier)
            async with self._open(classifier, self._read()) as rows:
                asking = asyncio.create_task(self._keep_asking(classifier))
                try:
                    async for row in rows:
                        self._deliver(row)
                finally:
                    asking.cancel()

    async def _keep_asking(self, classifier: AsyncVideoClassifier) -> None:
        """An operator may serve another version meanwhile."""
        while True:
            await asyncio.sleep(VERSION_SECONDS)
            await self._ask_version(classifier)

    async def _ask_version(self, classifier: AsyncVideoClassifier) -> None:
        with suppress(ClipserveError):
            self.model_version = await classifier.model_version()

    def _read(self) -> Iterator[Entry]:
        while (entry := self._entries.get()) is not None:
            yield entry

    def _deliver(self, row: AnyRow) -> None:
        last = self._is_last(row)
        batch, position = self._waiting.pop(row.id) if last else self._waiting[row.id]
        # About the servers, not about this video: no row for it. The batch is done again when the job is.
        if isinstance(row.error, RETRIED_ERRORS):
            batch.fail(row.error)
            return
        batch.rows[position].append(row)
        if last:
            batch.end()

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._ended = self._ended or error
            waiting, self._waiting = self._waiting, {}
        self._entries.put(None)
        for batch, _ in waiting.values():
            batch.fail(self._ended)


class Calls(SharedRun[Row]):
    """A run of `classify_many`: a row for each video."""

    def _open(self, classifier: AsyncVideoClassifier, entries: Iterator[Entry]) -> AsyncRowIterator[Row]:
        return classifier.classify_many(entries, ordered=False, progress=False, **self._options)

    def _is_last(self, row: Row) -> bool:
        return True


class TimelineCalls(SharedRun[TimelineRow]):
    """A run of `timeline_many`. The last row of a video has no window."""

    def _open(self, classifier: AsyncVideoClassifier, entries: Iterator[Entry]) -> AsyncRowIterator[TimelineRow]:
        return classifier.timeline_many(entries, progress=False, **self._options)

    def _is_last(self, row: TimelineRow) -> bool:
        return row.window is None
