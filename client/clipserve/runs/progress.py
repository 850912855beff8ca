"""The progress bar of a run, on the terminal or in a notebook."""

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from clipserve.errors import InvalidRequest

# A notebook shows a bar that was not requested only after this time: its bars stay, so short runs have none.
NOTEBOOK_AFTER_SECONDS = 1.0
# Between two updates of a notebook's bar: each is a message to the browser.
NOTEBOOK_EVERY_SECONDS = 0.2

Display = TypeVar("Display")


class Progress(Protocol):
    """Counts rows as they finish."""

    def advance(self, failures: int) -> None:
        """One more row is done; `failures` rows have failed so far."""

    def close(self) -> None:
        """End the display. May be called twice."""


def open_progress(wanted: bool | None, total: int | None) -> Progress:
    """See `choose_display`."""
    return choose_display(
        wanted,
        silence=Silence,
        bar=lambda: Bar(total),
        notebook_bar=lambda: NotebookBar(total, after_seconds=0 if wanted else NOTEBOOK_AFTER_SECONDS),
    )


def choose_display(
    wanted: bool | None,
    *,
    silence: Callable[[], Display],
    bar: Callable[[], Display],
    notebook_bar: Callable[[], Display],
) -> Display:
    """A bar for True, none for False; for None a bar in a notebook, or when stderr is a terminal and rich is installed.

    Raises:
        InvalidRequest: `wanted` is True and rich is not installed. A notebook does not need it.
    """
    if wanted is False:
        return silence()
    if in_notebook():
        return notebook_bar()
    if wanted is None and not sys.stderr.isatty():
        return silence()
    try:
        return bar()
    except ModuleNotFoundError as missing:
        if wanted is None:
            return silence()
        raise InvalidRequest(f"a progress bar needs {missing.name}: pip install 'clipserve[cli]'") from missing


class Silence(Progress):
    """No display."""

    def advance(self, failures: int) -> None: ...

    def close(self) -> None: ...


class Bar(Progress):
    """rich's bar: videos done, of how many if that is known, time, failures."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress: Any = Progress(
            TextColumn("videos"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            console=Console(stderr=True),
            transient=True,
        )
        self._total, self._done = total, 0
        self._task = self._progress.add_task("videos", total=total, failed="")

    def advance(self, failures: int) -> None:
        self._progress.start()  # not before there is something to show; a second start does nothing
        failed = f"{failures} failed" if failures else ""
        self._done += 1
        if self._total is not None and self._done > self._total:
            self._total = None  # folders and lists were counted as one video
            self._progress.reset(self._task, total=None, completed=self._done - 1)
        self._progress.update(self._task, advance=1, failed=failed)

    def close(self) -> None:
        # Each stop writes, even without a start before it, and fails where it is called at the end of the program.
        if self._progress.live.is_started:
            self._progress.stop()


class NotebookBar(Progress):
    """The browser's own bar and the same figures. rich's bar shows nothing without ipywidgets."""

    def __init__(self, total: int | None, *, after_seconds: float) -> None:
        self._total, self._done, self._failures = total, 0, 0
        self._begun = time.monotonic()
        self._due = self._begun + after_seconds
        self._picture: Any = None

    def advance(self, failures: int) -> None:
        self._done, self._failures = self._done + 1, failures
        if self._total is not None and self._done > self._total:
            self._total = None
        if time.monotonic() >= self._due:
            self._show()

    def close(self) -> None:
        if self._picture is not None:
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        self._due = time.monotonic() + NOTEBOOK_EVERY_SECONDS
        total = "?" if self._total is None else self._total
        failed = f", {self._failures} failed" if self._failures else ""
        text = f"videos {self._done}/{total} in {time.monotonic() - self._begun:.0f} s{failed}"
        bar = "" if self._total is None else f'<progress value="{self._done}" max="{self._total}"></progress> '
        content = {"text/plain": text, "text/html": f"<div>{bar}{text}</div>"}
        if self._picture is None:
            self._picture = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._picture.update(content, raw=True)


def in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, or one derived from it (Colab)."""
    # Such a kernel has imported IPython already; nothing is imported to find out.
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
