"""Ending what threads wait for: calls, pauses and downloads of one run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clipserve.errors import RequestCancelled


class Cancellation:
    """Shared by the threads of a run; after `cancel()` nothing in them waits any longer."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._ends: set[Callable[[], object]] = set()

    def cancel(self) -> None:
        """End everything under way, and whatever is begun later."""
        self._cancelled.set()
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            end()

    def check(self) -> None:
        """Raise RequestCancelled after `cancel()`."""
        if self._cancelled.is_set():
            raise RequestCancelled("the run was closed before this video had its turn")

    def pause(self, seconds: float) -> None:
        """Sleep, but not through a cancellation: that raises RequestCancelled."""
        self._cancelled.wait(seconds)
        self.check()

    @contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """Have `end` called, from another thread, if the cancellation comes within the block."""
        with self._lock:
            self._ends.add(end)
        try:
            if self._cancelled.is_set():
                end()
            yield
        finally:
            with self._lock:
                self._ends.discard(end)
