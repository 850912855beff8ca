"""Many videos at once for blocking code: rows as they come, a bounded number of calls under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from clipserve import defaults
from clipserve.batches.rows import Row
from clipserve.batches.runs import Reading, Run
from clipserve.batches.tally import Summary
from clipserve.errors import RequestCancelled
from clipserve.sources.entries import Entry

if TYPE_CHECKING:
    from clipserve.tables.table import Table

Work = Callable[[Entry], Row]


class RowStream:
    """Rows of many videos: iterate over them, or drain them into a `Table`.

    >>> for row in classifier.classify_many("videos/"):
    ...     print(row.video, row.prediction or row.error)
    >>> table = classifier.classify_many("videos/").table()

    Nothing is sent before the first row is asked for, and no more than a bounded number of videos ahead of the rows
    that were taken. Closing it, leaving it as a context, Ctrl-C and closing its classifier end the calls under way and
    every thread.
    """

    def __init__(self, run: Run, work: Work, *, end_calls: Callable[[], object]) -> None:
        self._entries = Reading(run.entries)
        self._work = work
        self._end_calls = end_calls
        self._tally = run.tally
        self._cancellation = run.cancellation
        self._room = run.parallel * defaults.READ_AHEAD
        self._begun: Line = InOrder() if run.ordered else AsFinished()
        # A worker does all that one video needs, reading included: no row hops between more threads than two.
        self._workers = ThreadPoolExecutor(run.parallel, "clipserve")
        self._ended = False
        self._closing = threading.Lock()
        self._closed = False

    @property
    def summary(self) -> Summary:
        """Counts of the rows so far, dropped ones included."""
        return self._tally.summary

    @property
    def failures(self) -> list[Row]:
        """The first thousand of the rows that on_error="drop" left out so far."""
        return list(self._tally.dropped)

    def table(self) -> Table:
        """All rows that are left, dropped failures beside them."""
        from clipserve.tables.table import Table

        kept: list[Row] = []
        dropped: list[Row] = []
        with self:
            while (row := self._take()) is not None:
                (dropped if self._tally.drops(row) else kept).append(row)
        return Table(kept, dropped, self._tally.summary.skipped)

    def close(self) -> None:
        """End the calls under way and the threads; rows not taken are lost. Harmless when done."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._cancellation.cancel()
        self._end_calls()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._tally.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        try:
            while (row := self._take()) is not None:
                if not self._tally.drops(row):
                    return row
        except BaseException:  # Ctrl-C, too
            self._ended = True
            self.close()
            raise
        self.close()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _take(self) -> Row | None:
        """The next row that is due; None at the end."""
        if self._ended:
            return None
        row: Row | None = None
        try:
            row = self._wait_for_row()
        except Exception:
            if not self._closed:
                raise
        # By another thread, or with its classifier: to end the iteration would look like success.
        if self._closed:
            raise RequestCancelled("the run was closed before all of its videos were classified")
        self._ended = row is None
        return row

    def _wait_for_row(self) -> Row | None:
        while len(self._begun) < self._room and (entry := self._entries.read()) is not None:
            self._begun.add(self._workers.submit(self._work, entry))
        if len(self._begun):
            return self._begun.take()
        self._entries.check()
        return None


class Line(Protocol):
    """Videos that were begun and whose rows were not taken."""

    def add(self, future: Future[Row]) -> None: ...

    def take(self) -> Row:
        """Wait for the row that is due."""

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
