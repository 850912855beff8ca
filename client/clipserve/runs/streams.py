"""The rows of a run for blocking code, as they come, with a bounded number of calls in flight."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol

from clipserve.errors import RequestCancelled
from clipserve.results import Row
from clipserve.runs.iteration import RowIterator
from clipserve.runs.run import Run
from clipserve.runs.summary import ErrorPolicy, Summary
from clipserve.sources.entries import Entries, Entry
from clipserve.tables.table import Table

CLOSED = "the run was closed before all of its videos were classified"


class RowStream(RowIterator[Row]):
    """Rows of many videos: iterate over them, or collect them in a `Table`.

    >>> for row in classifier.classify_many("videos/"):
    ...     print(row.video, row.prediction or row.error)
    >>> table = classifier.classify_many("videos/").table()

    The run starts when the first row is taken. It sends only a limited number of videos ahead of the rows that were
    taken. Closing the stream, leaving its `with`, Ctrl-C and closing its classifier stop the calls in flight and every
    thread.

    Args:
        classify: makes the row of an entry. A worker thread calls it.
        end_calls: ends the calls in flight.
    """

    def __init__(self, run: Run, classify: Callable[[Entry], Row], *, end_calls: Callable[[], object]) -> None:
        self._entries = EntryReader(run.entries)
        self._classify = classify
        self._end_calls = end_calls
        self._record: ErrorPolicy = run.errors
        self._room = run.room
        self._pending: PendingRows = InOrder() if run.options.ordered else AsFinished()
        # One worker does all that one video needs, reading included, so each row passes between two threads only.
        self._workers = ThreadPoolExecutor(run.options.parallel, "clipserve")
        self._closing = threading.Lock()
        self._closed = False

    @property
    def summary(self) -> Summary:
        """Counts of the rows so far, including dropped rows."""
        return self._record.summary

    @property
    def failures(self) -> list[Row]:
        """The first thousand failures that on_error="drop" has left out so far."""
        return list(self._record.dropped)

    def table(self) -> Table:
        """A table of all remaining rows, and of the dropped failures."""
        kept: list[Row] = []
        dropped: list[Row] = []
        with self:
            while (row := self._take()) is not None:
                (dropped if self._record.drops(row) else kept).append(row)
        return Table(kept, dropped, self._record.summary.skipped)

    def close(self) -> None:
        """Stop the calls in flight and the threads. Rows that were not taken are lost. May be called twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._end_calls()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._record.close()

    def _take(self) -> Row | None:
        if self._ended:
            return None
        row: Row | None = None
        try:
            row = self._wait_for_row()
        except Exception:
            if not self._closed:
                raise
        # Another thread, or the classifier, has closed this stream: to end the iteration would look like success.
        if self._closed:
            raise RequestCancelled(CLOSED)
        self._ended = row is None
        return row

    def _wait_for_row(self) -> Row | None:
        while len(self._pending) < self._room and (entry := self._entries.read()) is not None:
            self._pending.add(self._workers.submit(self._classify, entry))
        if len(self._pending):
            return self._pending.take()
        self._entries.check()
        return None


class EntryReader:
    """Reads entries. The error of a source that fails midway is raised only after the rows before it."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._error: Exception | None = None

    def read(self) -> Entry | None:
        """The next entry; None at the end."""
        if self._error is not None:
            return None
        try:
            return next(self._entries, None)
        except Exception as error:
            self._error = error
            return None

    def check(self) -> None:
        """Raise the error that ended the source early."""
        if self._error is not None:
            raise self._error


class PendingRows(Protocol):
    """Rows that workers make, until they are taken."""

    def add(self, future: Future[Row]) -> None: ...

    def take(self) -> Row:
        """Wait for the next row."""

    def __len__(self) -> int: ...


class InOrder:
    """Rows in the order of the source."""

    def __init__(self) -> None:
        self._futures: deque[Future[Row]] = deque()

    def add(self, future: Future[Row]) -> None:
        self._futures.append(future)

    def take(self) -> Row:
        return self._futures.popleft().result()

    def __len__(self) -> int:
        return len(self._futures)


class AsFinished:
    """Rows as they finish."""

    def __init__(self) -> None:
        self._done: SimpleQueue[Future[Row]] = SimpleQueue()
        self._count = 0

    def add(self, future: Future[Row]) -> None:
        self._count += 1
        future.add_done_callback(self._done.put)

    def take(self) -> Row:
        row = self._done.get().result()
        self._count -= 1
        return row

    def __len__(self) -> int:
        return self._count
