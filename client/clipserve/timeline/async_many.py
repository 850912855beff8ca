"""The timelines of many videos at a time, for asyncio."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from clipserve.cancellation import call_soon
from clipserve.errors import ClipserveError, RequestCancelled
from clipserve.runs.iteration import AsyncRowIterator
from clipserve.runs.prefetch import Prefetcher
from clipserve.runs.summary import Summary
from clipserve.sources.entries import Entries
from clipserve.timeline.many import CLOSED, ROWS_AHEAD, Part, RunRecord, TimelineRow, make_failure
from clipserve.timeline.timelines import AsyncTimeline
from clipserve.timeline.window import VideoFacts


class AsyncTimelineTasks:
    """`TimelineThreads` for asyncio: the tasks of a run, and the rows that wait for the caller."""

    def __init__(
        self, entries: Entries, open_timeline: Callable[[Part], AsyncTimeline], record: RunRecord, parallel: int
    ) -> None:
        self.entries = Prefetcher(entries, 2 * parallel)
        self.rows: asyncio.Queue[TimelineRow | None] = asyncio.Queue(ROWS_AHEAD * parallel)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._open_timeline = open_timeline
        self._record = record
        self._parallel = parallel
        self._started = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeder: asyncio.Task[None] | None = None

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the work, in its own event loop, and wake whoever waits for a row."""
        tasks = [*self._tasks, *([self._feeder] if self._feeder else [])]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.QueueFull):  # then nobody waits
            self.rows.put_nowait(None)
        return tasks

    def start(self) -> None:
        """Start the work, in the running event loop, if it has not begun."""
        if self._feeder is None:
            self.loop = asyncio.get_running_loop()
            self._feeder = asyncio.create_task(self._feed())

    async def check(self) -> None:
        """Raise what ended the work, after its last row."""
        assert self._feeder is not None
        await self._feeder
        self.entries.check()

    async def _feed(self) -> None:
        """Puts None after the rows of all videos, or after a failure that its task carries."""
        try:
            await self._start_videos()
        except Exception:
            await self.rows.put(None)
            raise
        await self.rows.put(None)

    async def _start_videos(self) -> None:
        """Starts a task for each video, `parallel` at a time, and waits for all of them."""
        while True:
            while len(self._tasks) < self._parallel and (entry := self.entries.take()) is not None:
                part = Part(self._started, entry)
                self._started += 1
                self._tasks.add(asyncio.create_task(self._follow(part)))
            if not self._tasks and self.entries.ended:
                return
            waiting: set[asyncio.Future[None]] = {*self._tasks}
            if len(self._tasks) < self._parallel and not self.entries.ended:
                waiting.add(self.entries.change())
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                self.entries.release()
                task.result()

    async def _follow(self, part: Part) -> None:
        entry = part.entry
        facts = VideoFacts()
        try:
            self._record.begin(entry)
            async with self._open_timeline(part) as timeline:
                async for window in timeline:
                    facts = timeline.facts
                    await self.rows.put(
                        TimelineRow(entry.spelt_id, entry.name, part.number, window=window, facts=facts)
                    )
        except ClipserveError as error:
            await self.rows.put(make_failure(part, error, facts))
        else:
            await self.rows.put(TimelineRow(entry.spelt_id, entry.name, part.number, facts=timeline.facts))


class AsyncTimelineRows(AsyncRowIterator[TimelineRow]):
    """`TimelineRows` for asyncio: `async for row in ...`.

    It belongs to the event loop that takes its first row. Stop an unfinished run with `await rows.close()`, with
    `async with`, or by closing its classifier. A thread reads the source, also if it is a generator.
    """

    def __init__(
        self, entries: Entries, open_timeline: Callable[[Part], AsyncTimeline], record: RunRecord, parallel: int
    ) -> None:
        self._record: RunRecord = record
        self._tasks = AsyncTimelineTasks(entries, open_timeline, record, parallel)
        self._closed = False

    @property
    def summary(self) -> Summary:
        """Counts of the videos that have ended so far, dropped ones included."""
        return self._record.summary

    async def close(self) -> None:
        """End the work; rows that were not taken are lost. May be called twice, and in any event loop."""
        if self._closed:
            return
        self._closed = True
        self._tasks.entries.close()
        if self._tasks.loop is asyncio.get_running_loop():
            await asyncio.gather(*self._tasks.cancel(), return_exceptions=True)
        elif self._tasks.loop is not None:
            call_soon(self._tasks.loop, self._tasks.cancel)
        self._record.close()

    def __del__(self) -> None:
        """Of a run that was left by `break`, the tasks would keep timelines of the server in use."""
        self._tasks.entries.close()
        if not self._closed and self._tasks.loop is not None:
            call_soon(self._tasks.loop, self._tasks.cancel)
        self._record.close()

    async def _take(self) -> TimelineRow | None:
        if self._ended:
            return None
        if self._closed:
            raise RequestCancelled(CLOSED)
        self._tasks.start()
        row = await self._tasks.rows.get()
        if self._closed:
            raise RequestCancelled(CLOSED)
        if row is None:
            await self._tasks.check()
        return row
