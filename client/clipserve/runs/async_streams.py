"""The rows of a run for asyncio."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from clipserve.cancellation import call_soon
from clipserve.errors import InvalidRequest, RequestCancelled
from clipserve.results import Row
from clipserve.runs.iteration import AsyncRowIterator
from clipserve.runs.prefetch import Prefetcher
from clipserve.runs.run import Run
from clipserve.runs.streams import CLOSED
from clipserve.runs.summary import ErrorPolicy, Summary
from clipserve.sources.entries import Entry
from clipserve.tables.table import Table


class AsyncRowStream(AsyncRowIterator[Row]):
    """`RowStream` for asyncio: `async for row in ...`, or `await stream.table()`.

    It belongs to the event loop that takes its first row. Stop an unfinished stream with `await stream.close()`, with
    `async with`, or by closing its classifier; any loop may do this. A thread reads the source, also if it is a
    generator.
    """

    def __init__(self, run: Run, classify: Callable[[Entry], Awaitable[Row]]) -> None:
        self._entries = Prefetcher(run.entries, run.room)
        self._classify = classify
        self._record: ErrorPolicy = run.errors
        self._cancellation = run.cancellation
        self._slots = asyncio.Semaphore(run.options.parallel)
        self._ordered = run.options.ordered
        self._pending: deque[asyncio.Task[Row]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def summary(self) -> Summary:
        """Counts of the rows so far, including dropped rows."""
        return self._record.summary

    @property
    def failures(self) -> list[Row]:
        """The first thousand failures that on_error="drop" has left out so far."""
        return list(self._record.dropped)

    async def table(self) -> Table:
        """A table of all remaining rows, and of the dropped failures."""
        kept: list[Row] = []
        dropped: list[Row] = []
        async with self:
            while (row := await self._take()) is not None:
                (dropped if self._record.drops(row) else kept).append(row)
        return Table(kept, dropped, self._record.summary.skipped)

    async def close(self) -> None:
        """Cancel the calls in flight. Rows that were not taken are lost. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._entries.close()
        self._cancellation.cancel()
        if self._loop is asyncio.get_running_loop():
            self._cancel_calls()
            await asyncio.gather(*self._pending, return_exceptions=True)
            self._pending.clear()
        elif self._loop is not None:
            call_soon(self._loop, self._cancel_calls)
        self._record.close()

    def __del__(self) -> None:
        self._entries.close()
        self._record.close()

    async def _take(self) -> Row | None:
        if self._ended:
            return None
        self._check_loop()
        row = None if self._closed else await self._wait_for_row()
        # Another task, or the classifier, has closed this stream: to end the iteration would look like success.
        if self._closed:
            raise RequestCancelled(CLOSED)
        self._ended = row is None
        return row

    async def _wait_for_row(self) -> Row | None:
        while not self._closed:
            while (entry := self._entries.take()) is not None:
                self._pending.append(asyncio.create_task(self._classify_in_slot(entry)))
            if not self._pending and self._entries.ended:
                self._entries.check()
                return None
            due = [*self._pending][: 1 if self._ordered else None]
            awaited: list[asyncio.Future[Any]] = [*due]
            if not self._entries.ended:
                awaited.append(self._entries.change())
            # When the waiting task is cancelled, wait() does not cancel the calls; close() does.
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            done = next((task for task in due if task.done()), None)
            if done is not None and not self._closed:
                self._pending.remove(done)
                self._entries.release()
                return done.result()
        return None

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise InvalidRequest(
                "this run belongs to another event loop, in which its first row was taken: take all rows there, or"
                " start another run here"
            )

    def _cancel_calls(self) -> None:
        for task in self._pending:
            task.cancel()

    async def _classify_in_slot(self, entry: Entry) -> Row:
        async with self._slots:
            return await self._classify(entry)
