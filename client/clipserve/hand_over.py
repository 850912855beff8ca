"""From a thread to a task that may be gone by then."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

Result = TypeVar("Result")


class HandOver(Generic[Result]):
    """Holds what a thread found out until a task takes it; nothing once the task has dropped it.

    The future of `asyncio.to_thread` would carry it as well. But a thread that ends after its task was cancelled leaves
    that future, and with it a whole video, in the queue of an event loop that may have stopped for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = False
        self._result: Result | None = None
        self._error: Exception | None = None

    def fill(self, work: Callable[[], Result]) -> None:
        """Keep what `work` returns or raises. For the thread."""
        result: Result | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        with self._lock:
            if not self._dropped:
                self._result, self._error = result, error
        # The frames of the error hold this one: without a circle they go at once.
        del result, error

    def take(self) -> Result:
        """Return or raise what `fill` kept."""
        if self._error is not None:
            raise self._error
        return cast(Result, self._result)

    def drop(self) -> None:
        """Keep nothing any longer, whether filled already or not."""
        with self._lock:
            self._dropped = True
            self._result = self._error = None
