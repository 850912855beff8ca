"""The windows of many videos, several at a time."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from clipserve.cancellation import Cancellation, call_soon
from clipserve.errors import ClipserveError, RequestCancelled
from clipserve.options import OnError
from clipserve.runs.iteration import AsyncRowIterator, RowIterator
from clipserve.runs.prefetch import Prefetcher
from clipserve.runs.summary import FATAL_ERRORS, Summary
from clipserve.sources.entries import Entries, Entry, forget_frames
from clipserve.timeline.progress import Progress
from clipserve.timeline.timelines import AsyncTimeline, Timeline
from clipserve.timeline.window import VideoFacts, Window

CLOSED = "the run was closed before all of its videos were done"
# Rows that wait for the caller, for each video at work.
ROWS_AHEAD = 16
# A thread ends as soon as its call is cancelled. Only one that reads a source which hangs takes longer.
LONGEST_END_SECONDS = 5.0


@dataclass(frozen=True)
class Part:
    """What a run asks for: the windows of one video from `first_window` on. number: of its entry, from 0."""

    number: int
    entry: Entry
    first_window: int = 0


Parts: TypeAlias = Iterator[Part]


@dataclass(frozen=True)
class TimelineRow:
    """A window of one of many videos; or, as the last row of a video, its error or its end.

    id and video are valid UTF-8, as in `Row`.

    Attributes:
        id: the column `id` of its source, or the path, address or position of the video.
        video: path or address (without credentials) of the video, or "<bytes>".
        number: position of the video in its source, from 0.
        window: the window; None in the last row of a video.
        error: why the video has no more windows; None for a window, and where the video is complete.
        facts: what the server knows about the video so far.
    """

    id: str
    video: str
    number: int
    window: Window | None = None
    error: ClipserveError | None = None
    facts: VideoFacts = field(default_factory=VideoFacts)

    @property
    def is_complete(self) -> bool:
        """Whether every window of the video has come before this row."""
        return self.window is None and self.error is None


class RunRecord:
    """Counts the videos of a run, shows progress, and does with failures what `on_error` says."""

    def __init__(self, on_error: OnError, progress: Progress) -> None:
        self.summary = Summary()
        self._on_error = on_error
        self._progress = progress

    def begin(self, entry: Entry) -> None:
        """Show that a video is sent. Any thread may call it."""
        self._progress.begin(entry.name)

    def drops(self, row: TimelineRow) -> bool:
        """Count a row. Returns whether to leave it out, or raises its error."""
        if row.window is not None:
            self._progress.show(row.video, row.window, row.facts)
            return False
        self._progress.end(row.video)
        if row.error is None:
            self.summary.succeeded += 1
            self.summary.truncated += bool(row.facts.truncated)
            return False
        self.summary.failed[type(row.error).__name__] += 1
        if self._on_error == "raise" or isinstance(row.error, FATAL_ERRORS):
            raise row.error
        return self._on_error == "drop"

    def close(self) -> None:
        """End the progress bar."""
        self._progress.close()


class TimelineThreads:
    """The threads of a run, `parallel` videos at a time, and the rows that wait for the caller.

    They know nothing of `TimelineRows`, so a run that its caller drops is closed.
    """

    def __init__(
        self, parts: Parts, open_timeline: Callable[[Part], Timeline], record: RunRecord, parallel: int
    ) -> None:
        self._parts = parts
        self._open_timeline = open_timeline
        self._record = record
        self._parallel = parallel
        self._reading = threading.Lock()
        self._rows: deque[TimelineRow] = deque()
        self._changed = threading.Condition()
        self._cancellation = Cancellation(CLOSED)
        self._working = 0
        self._error: BaseException | None = None  # of the source
        self._threads: list[threading.Thread] = []

    def close(self) -> None:
        """End the work and the threads; rows that were not taken are lost. May be called twice."""
        self._cancellation.cancel()
        with self._changed:
            self._rows.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(LONGEST_END_SECONDS)

    def take(self) -> TimelineRow | None:
        """The next row; None at the end. Starts the threads."""
        self._cancellation.check()
        if not self._threads:
            self._working = self._parallel
            for number in range(self._parallel):
                # Daemons: a source that hangs in one of them does not keep the program from ending.
                thread = threading.Thread(target=self._work, name=f"clipserve timeline {number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        with self._changed:
            # Ctrl-C gets through to a wait with a limit.
            while not (self._rows or self._cancellation.cancelled or not self._working):
                self._changed.wait(1)
            self._cancellation.check()
            if self._rows:
                self._changed.notify_all()
                return self._rows.popleft()
            if self._error is not None:
                raise self._error
            return None

    def _work(self) -> None:
        """Runs in each thread: one video after the other."""
        try:
            while not self._cancellation.cancelled:
                with self._reading:
                    part = None if self._error else next(self._parts, None)
                if part is None:
                    return
                self._follow(part)
        except RequestCancelled:
            pass
        except BaseException as error:
            self._error = self._error or error
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _follow(self, part: Part) -> None:
        entry = part.entry
        facts = VideoFacts()
        try:
            if isinstance(entry.video, ClipserveError):
                raise entry.video
            self._record.begin(entry)
            timeline = self._open_timeline(part)
            with timeline, self._cancellation.calls(timeline.close):
                for window in timeline:
                    facts = timeline.facts
                    self._put(TimelineRow(entry.spelt_id, entry.name, part.number, window=window, facts=facts))
        except ClipserveError as error:
            self._cancellation.check()
            self._put(make_failure(part, error, facts))
        else:
            self._put(TimelineRow(entry.spelt_id, entry.name, part.number, facts=timeline.facts))

    def _put(self, row: TimelineRow) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._rows) < ROWS_AHEAD * self._parallel or self._cancellation.cancelled
            )
            self._cancellation.check()
            self._rows.append(row)
            self._changed.notify_all()


class TimelineRows(RowIterator[TimelineRow]):
    """Iterates over the windows of many videos. Those of one video come in order; those of several videos are mixed.

    >>> for row in classifier.timeline_many("matches/"):
    ...     print(row.video, row.window or row.error or "complete")

    It requests only a limited number of windows ahead of those that were taken. Closing the run, leaving its `with`,
    dropping it, Ctrl-C and closing its classifier stop the work on the server and every thread.

    Args:
        open_timeline: begins the timeline of a part.
    """

    def __init__(
        self, parts: Parts, open_timeline: Callable[[Part], Timeline], record: RunRecord, parallel: int
    ) -> None:
        self._record: RunRecord = record
        self._threads = TimelineThreads(parts, open_timeline, record, parallel)

    @property
    def summary(self) -> Summary:
        """Counts of the videos that have ended so far, dropped ones included."""
        return self._record.summary

    def close(self) -> None:
        """End the work and the threads; rows that were not taken are lost. May be called twice."""
        self._threads.close()
        self._record.close()

    def _take(self) -> TimelineRow | None:
        return None if self._ended else self._threads.take()


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
            if isinstance(entry.video, ClipserveError):
                raise entry.video
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


def make_failure(part: Part, error: ClipserveError, facts: VideoFacts) -> TimelineRow:
    """The last row of a video that failed. It may be kept for long, so it keeps nothing but the error alive."""
    forget_frames(error)
    return TimelineRow(part.entry.spelt_id, part.entry.name, part.number, error=error, facts=facts)
