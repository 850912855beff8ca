"""A bar on the terminal or in a notebook that shows how far a run has come."""

import sys
import time
from typing import Any, Protocol

from clipserve.errors import InvalidRequest
from clipserve.notebooks import in_notebook

# Before a notebook shows a bar that nobody asked for: unlike a terminal's it stays, so short runs go without.
NOTEBOOK_AFTER_SECONDS = 1.0
# Between two pictures of it: each is a message to the browser.
NOTEBOOK_EVERY_SECONDS = 0.2


class Progress(Protocol):
    """Where rows are noted as they finish."""

    def advance(self, failures: int) -> None:
        """One more row is done; so many have failed so far."""

    def close(self) -> None:
        """End the display; may be called twice."""


def open_progress(wanted: bool | None, total: int | None) -> Progress:
    """A bar: always, never, or, for None, when stderr is a terminal and rich is there, or in a notebook.

    Raises:
        InvalidRequest: a bar is wanted and rich is not installed; a notebook does without it.
    """
    if wanted is False:
        return Silence()
    if in_notebook():
        return NotebookBar(total, after_seconds=0 if wanted else NOTEBOOK_AFTER_SECONDS)
    if wanted is None and not sys.stderr.isatty():
        return Silence()
    try:
        return Bar(total)
    except ModuleNotFoundError as missing:
        if wanted is None:
            return Silence()
        raise InvalidRequest(f"a progress bar needs {missing.name}: pip install 'clipserve[cli]'") from missing


class Silence:
    """No display."""

    def advance(self, failures: int) -> None: ...

    def close(self) -> None: ...


class Bar:
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
        self._progress.start()  # not before there is something to show; harmless when started
        failed = f"{failures} failed" if failures else ""
        self._done += 1
        if self._total is not None and self._done > self._total:
            self._total = None  # it counted folders or lists that hold more than one video
            self._progress.reset(self._task, total=None, completed=self._done - 1)
        self._progress.update(self._task, advance=1, failed=failed)

    def close(self) -> None:
        self._progress.stop()


class NotebookBar:
    """The browser's own bar and the same figures; rich's would need ipywidgets, and shows nothing without."""

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
