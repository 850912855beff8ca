"""A bar on the terminal that shows how far a run has come."""

import sys
from typing import Any, Protocol

from clipserve.errors import InvalidRequest


class Progress(Protocol):
    """Where rows are noted as they finish."""

    def advance(self, failures: int) -> None:
        """One more row is done; so many have failed so far."""

    def close(self) -> None:
        """End the display; may be called twice."""


def open_progress(wanted: bool | None, total: int | None) -> Progress:
    """A bar on stderr: always, never, or, for None, when stderr is a terminal and rich is there.

    Raises:
        InvalidRequest: a bar is wanted and rich is not installed.
    """
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
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
