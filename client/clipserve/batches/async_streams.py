"""Many videos at once for asyncio: the same rows, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from clipserve import defaults
from clipserve.batches.feeds import Feed
from clipserve.batches.rows import Row
from clipserve.batches.runs import Run
from clipserve.batches.tally import Summary
from clipserve.errors import InvalidRequest, RequestCancelled
from clipserve.sources.entries import Entry

if TYPE_CHECKING:
    from clipserve.tables.table import Table

Work = Callable[[Entry], Awaitable[Row]]


class AsyncRowStream:
    """`RowStream` for asyncio: `async for row in ...`, or `await stream.table()`.

    It belongs to the event loop that takes its first row. Leave an unfinished stream by `await stream.close()`, by
    `async with`, or by closing its classifier; these may come from any loop. The source is read in a thread of its own,
    a generator, too.
    """

    def __init__(self, run: Run, work: Work) -> None:
        self._feed = Feed(run.entries, run.parallel * defaults.READ_AHEAD)
        self._work = work
        self._tally = run.tally
        self._cancellation = run.cancellation
        self._gate = asyncio.Semaphore(run.parallel)
        self._ordered = run.ordered
        self._begun: deque[asyncio.Task[Row]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._closed = False

    @property
    def summary(self) -> Summary:
        """Counts of the rows so far, dropped ones included."""
        return self._tally.summary

    @property
    def failures(self) -> list[Row]:
        """The first thousand of the rows that on_error="drop" left out so far."""
        return list(self._tally.dropped)

    async def table(self) -> Table:
        """All rows that are left, dropped failures beside them."""
        from clipserve.tables.table import Table

        kept: list[Row] = []
        dropped: list[Row] = []
        async with self:
            while (row := await self._take()) is not None:
                (dropped if self._tally.drops(row) else kept).append(row)
        return Table(kept, dropped, self._tally.summary.skipped)

    async def close(self) -> None:
        """Cancel the calls under way; rows not taken are lost. Harmless when done."""
        if self._closed:
            return
        self._closed = True
        self._feed.close()
        self._cancellation.cancel()
        if self._loop is asyncio.get_running_loop():
            self._cancel_calls()
            await asyncio.gather(*self._begun, return_exceptions=True)
            self._begun.clear()
        elif self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed, and every task of it has ended
                self._loop.call_soon_threadsafe(self._cancel_calls)
        self._tally.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        try:
            while (row := await self._take()) is not None:
                if not self._tally.drops(row):
                    return row
        except BaseException:  # a cancelled task, too
            self._ended = True
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        self._feed.close()

    async def _take(self) -> Row | None:
        """The next row that is due; None at the end."""
        if self._ended:
            return None
        self._check_loop()
        row = None if self._closed else await self._wait_for_row()
        # By another task, or with its classifier: to end the iteration would look like success.
        if self._closed:
            raise RequestCancelled("the run was closed before all of its videos were classified")
        self._ended = row is None
        return row

    async def _wait_for_row(self) -> Row | None:
        while not self._closed:
            while (entry := self._feed.take()) is not None:
                self._begun.append(asyncio.create_task(self._pass_gate(entry)))
            if not self._begun and self._feed.ended:
                self._feed.check()
                return None
            due = [*self._begun][: 1 if self._ordered else None]
            waited: list[asyncio.Future[Any]] = [*due]
            if not self._feed.ended:
                waited.append(self._feed.news())
            # wait() leaves the calls alone when the waiting task is cancelled; close() decides about them.
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            done = next((task for task in due if task.done()), None)
            if done is not None and not self._closed:
                self._begun.remove(done)
                self._feed.let_go()
                return done.result()
        return None

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise InvalidRequest(
                "the rows of a run are taken in one event loop, and the first of this run was taken in another: take"
                " all of them there, or begin another run here"
            )

    def _cancel_calls(self) -> None:
        for task in self._begun:
            task.cancel()

    async def _pass_gate(self, entry: Entry) -> Row:
        async with self._gate:
            return await self._work(entry)
