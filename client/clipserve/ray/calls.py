"""The videos of many batches, sent in one run: a slow video at the end of a batch holds up no other batch."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeAlias

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.cancellation import call_soon
from clipserve.errors import ClipserveError, RequestCancelled
from clipserve.results import Row
from clipserve.retry import RETRIED_ERRORS
from clipserve.sources.entries import Entry
from clipserve.sources.videos import VideoSource

Video: TypeAlias = VideoSource | ClipserveError

VERSION_SECONDS = 10.0  # between two questions which version of the model answers


class Batch:
    """The rows of a batch, until all of them are there."""

    def __init__(self, size: int) -> None:
        self.rows: list[Row | None] = [None] * size
        self._left = size
        self._error: BaseException | None = None
        self._done = threading.Event()
        if not size:
            self._done.set()

    def put(self, position: int, row: Row) -> None:
        """Note the row of a video."""
        self.rows[position] = row
        self._left -= 1
        if not self._left:
            self._done.set()

    def fail(self, error: BaseException) -> None:
        """End the wait with an error."""
        self._error = self._error or error
        self._done.set()

    def wait(self) -> list[Row]:
        """All rows, in order. Raises what ended the run."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return [row for row in self.rows if row is not None]


class Calls:
    """One run of `AsyncVideoClassifier.classify_many`, in a thread, which any number of threads give videos to.

    Args:
        options: arguments of `classify_many`.
    """

    def __init__(self, make_classifier: Callable[[], AsyncVideoClassifier], options: dict[str, Any]) -> None:
        self._make_classifier = make_classifier
        self._options = options
        self._entries: SimpleQueue[Entry | None] = SimpleQueue()
        self._numbers = itertools.count()
        self._waiting: dict[str, tuple[Batch, int]] = {}
        self._lock = threading.Lock()
        self._ended: BaseException | None = None
        self._cancel: Callable[[], object] = lambda: None
        self.model_version: str | None = None
        self._thread = threading.Thread(target=self._run, name="clipserve calls", daemon=True)
        self._thread.start()

    def classify(self, videos: Sequence[Video]) -> list[Row]:
        """The row of each video, in order.

        Raises:
            UnknownModel, AccessDenied: no video can be classified.
            ServerUnavailable, ServerBusy, ModelNotReady: the servers were away for too long.
            RequestCancelled: `close` was called.
        """
        batch = Batch(len(videos))
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

    def _run(self) -> None:
        try:
            asyncio.run(self._classify())
        except BaseException as error:
            self._end(error)

    async def _classify(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._cancel = lambda: call_soon(loop, task.cancel)
        async with self._make_classifier() as classifier:
            if self._ended is not None:
                return
            await self._ask_version(classifier)
            stream = classifier.classify_many(self._read(), ordered=False, progress=False, **self._options)
            async with stream:
                asking = asyncio.create_task(self._keep_asking(classifier))
                try:
                    async for row in stream:
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

    def _deliver(self, row: Row) -> None:
        batch, position = self._waiting.pop(row.id)
        # About the servers, not about this video: no row for it. The batch is done again when the job is.
        if isinstance(row.error, RETRIED_ERRORS):
            batch.fail(row.error)
        else:
            batch.put(position, row)

    def _end(self, error: BaseException) -> None:
        with self._lock:
            self._ended = self._ended or error
            waiting, self._waiting = self._waiting, {}
        self._entries.put(None)
        for batch, _ in waiting.values():
            batch.fail(self._ended)
