"""The progress bar of timelines, in video time: on the terminal or in a notebook."""

import time
from typing import Any, Protocol

from clipserve.names import make_printable
from clipserve.runs.progress import NOTEBOOK_EVERY_SECONDS, choose_display
from clipserve.timeline.window import VideoFacts, Window

LONGEST_NAME = 30
WAITING = "waiting for the first window"


class Progress(Protocol):
    """Shows how far the videos are."""

    def begin(self, video: str | None) -> None:
        """A video is sent, and its first window is waited for: of a long one, that takes a minute or more."""

    def show(self, video: str | None, window: Window, facts: VideoFacts) -> None:
        """A window was taken."""

    def end(self, video: str | None) -> None:
        """A video has ended."""

    def close(self) -> None:
        """End the display. May be called twice."""


def open_progress(wanted: bool | None) -> Progress:
    """See `choose_display`."""
    return choose_display(wanted, silence=Silence, bar=Bar, notebook_bar=NotebookBar)


class Silence(Progress):
    """No display."""

    def begin(self, video: str | None) -> None: ...

    def show(self, video: str | None, window: Window, facts: VideoFacts) -> None: ...

    def end(self, video: str | None) -> None: ...

    def close(self) -> None: ...


class Bar(Progress):
    """A bar of rich for each video at work: its time so far, of how much if that is known, and the time it took."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress: Any = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[time]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str | None, Any] = {}

    def begin(self, video: str | None) -> None:
        self._progress.start()  # not before there is something to show; a second start does nothing
        if video not in self._tasks:
            self._tasks[video] = self._progress.add_task(shorten(video or ""), total=None, time=WAITING)

    def show(self, video: str | None, window: Window, facts: VideoFacts) -> None:
        self.begin(video)
        self._progress.update(
            self._tasks[video],
            completed=window.end_seconds,
            total=facts.duration_seconds,
            time=describe_time(window, facts),
        )

    def end(self, video: str | None) -> None:
        if (task := self._tasks.pop(video, None)) is not None:
            self._progress.remove_task(task)

    def close(self) -> None:
        # Each stop writes, even without a start before it, and fails where it is called at the end of the program.
        if self._progress.live.is_started:
            self._progress.stop()


class NotebookBar(Progress):
    """The browser's own bar and the same figures. rich's bar shows nothing without ipywidgets."""

    def __init__(self) -> None:
        self._begun = self._due = time.monotonic()
        self._picture: Any = None
        self._last: tuple[str | None, Window, VideoFacts] | None = None

    def begin(self, video: str | None) -> None: ...

    def show(self, video: str | None, window: Window, facts: VideoFacts) -> None:
        self._last = (video, window, facts)
        if time.monotonic() >= self._due:
            self._show()

    def end(self, video: str | None) -> None: ...

    def close(self) -> None:
        if self._last is not None:
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        assert self._last is not None
        video, window, facts = self._last
        self._last = None
        self._due = time.monotonic() + NOTEBOOK_EVERY_SECONDS
        text = f"{describe_time(window, facts)} of video in {time.monotonic() - self._begun:.0f} s"
        total = facts.duration_seconds
        bar = "" if total is None else f'<progress value="{window.end_seconds:.3f}" max="{total:.3f}"></progress> '
        content = {"text/plain": f"{shorten(video or '')} {text}", "text/html": f"<div>{bar}{text}</div>"}
        if self._picture is None:
            self._picture = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._picture.update(content, raw=True)


def describe_time(window: Window, facts: VideoFacts) -> str:
    """How far a video is, such as "0:12:30 / 1:30:00"."""
    total = "?" if facts.duration_seconds is None else format_time(facts.duration_seconds)
    return f"{format_time(window.end_seconds)} / {total}"


def format_time(seconds: float) -> str:
    """Hours, minutes and whole seconds: "1:05:09"."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def shorten(name: str) -> str:
    """The end of a name, which says the most, as one line."""
    printable = make_printable(name)
    return printable if len(printable) <= LONGEST_NAME else f"...{printable[-LONGEST_NAME + 3 :]}"
