"""Many videos at once for asyncio: the same rows, awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from clipserve import defaults
from clipserve.batches.rows import Row
from clipserve.batches.runs import Reading, Run
from clipserve.batches.tally import Summary
from clipserve.errors import RequestCancelled
from clipserve.sources.entries import Entry

if TYPE_CHECKING:
    from clipserve.tables.table import Table

Work = Callable[[Entry], Awaitable[Row]]


class AsyncRowStream:
    """`RowStream` for asyncio: `async for row in ...`, or `await stream.table()`.

    Leave an unfinished stream by `await stream.close()`, by `async with`, or by closing its classifier. The source is
    read in the event loop.
    """

    def __init__(self, run: Run, work: Work) -> None:
        self._entries = Reading(run.entries)
        self._work = work
        self._tally = run.tally
        self._cancellation = run.cancellation
        self._room = run.parallel * defaults.READ_AHEAD
        self._gate = asyncio.Semaphore(run.parallel)
        self._ordered = run.ordered
        self._begun: deque[asyncio.Task[Row]] = deque()
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
        return Table(kept, dropped)

    async def close(self) -> None:
        """Cancel the calls under way; rows not taken are lost. Harmless when done."""
        if self._closed:
            return
        self._closed = True
        self._cancellation.cancel()
        for task in self._begun:
            task.cancel()
        await asyncio.gather(*self._begun, return_exceptions=True)
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

    async def _take(self) -> Row | None:
        """The next row that is due; None at the end."""
        if self._ended:
            return None
        row = None if self._closed else await self._wait_for_row()
        # By another task, or with its classifier: to end the iteration would look like success.
        if self._closed:
            raise RequestCancelled("the run was closed before all of its videos were classified")
        self._ended = row is None
        return row

    async def _wait_for_row(self) -> Row | None:
        while len(self._begun) < self._room and (entry := self._entries.read()) is not None:
            self._begun.append(asyncio.create_task(self._pass_gate(entry)))
        if not self._begun:
            self._entries.check()
            return None
        # wait() leaves the calls alone when the waiting task is cancelled; close() decides about them.
        waited = [self._begun[0]] if self._ordered else self._begun
        done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if self._closed:
            return None
        task = next(task for task in self._begun if task in done)
        self._begun.remove(task)
        return task.result()

    async def _pass_gate(self, entry: Entry) -> Row:
        async with self._gate:
            return await self._work(entry)
