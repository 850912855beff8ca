"""The windows of many videos, several at a time."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from clipserve.cancellation import Cancellation
from clipserve.errors import ClipserveError, RequestCancelled
from clipserve.options import OnError
from clipserve.runs.iteration import RowIterator
from clipserve.runs.summary import FATAL_ERRORS, Summary
from clipserve.sources.entries import Entry, forget_frames
from clipserve.timeline.progress import Progress
from clipserve.timeline.timelines import Timeline
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
        """Show that a video is sent, or raise why there is none. Any thread may call it."""
        if isinstance(entry.video, ClipserveError):
            raise entry.video
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


def make_failure(part: Part, error: ClipserveError, facts: VideoFacts) -> TimelineRow:
    """The last row of a video that failed. It may be kept for long, so it keeps nothing but the error alive."""
    forget_frames(error)
    return TimelineRow(part.entry.spelt_id, part.entry.name, part.number, error=error, facts=facts)
