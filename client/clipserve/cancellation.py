"""Ending work in threads that nobody waits for any longer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar, cast

from clipserve.errors import RequestCancelled

Result = TypeVar("Result")


class Cancellation:
    """Ends the calls, pauses and downloads of a run, or of a classifier. Threads share it.

    Args:
        reason: the message of RequestCancelled, for whatever is cancelled.
        model: the model of that error.
    """

    def __init__(
        self, reason: str = "the run was closed before it classified this video", *, model: str | None = None
    ) -> None:
        self._reason = reason
        self._model = model
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: set[Callable[[], object]] = set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End everything in flight, and whatever begins later."""
        self._cancelled.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise RequestCancelled after `cancel()`."""
        if self.cancelled:
            raise RequestCancelled(self._reason, model=self._model)

    def sleep(self, seconds: float) -> None:
        """Sleep; a cancellation ends the sleep with RequestCancelled."""
        self._cancelled.wait(seconds)
        self.check()

    async def sleep_in_loop(self, seconds: float) -> None:
        """`sleep` for asyncio."""
        loop = asyncio.get_running_loop()
        cancelled = asyncio.Event()
        with self.calls(lambda: call_soon(loop, cancelled.set)), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await cancelled.wait()
        self.check()

    @contextmanager
    def calls(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call `callback`, maybe from another thread, if the cancellation comes before the block ends."""
        with self._lock:
            self._callbacks.add(callback)
        try:
            if self.cancelled:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.discard(callback)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Let an event loop call `callback`, from any thread. Does nothing if the loop is closed: nothing runs in it."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


async def run_in_thread(work: Callable[[], Result], cancellation: Cancellation) -> Result:
    """Run `work` in a thread of asyncio's pool. Cancelling the task that waits for it cancels `cancellation`."""
    result: ThreadResult[Result] = ThreadResult()
    try:
        await asyncio.to_thread(result.fill, work)
        return result.take()
    except asyncio.CancelledError:
        cancellation.cancel()
        raise
    finally:
        result.drop()


class ThreadResult(Generic[Result]):
    """The result of a thread, until a task takes or drops it.

    The future of `asyncio.to_thread` could carry the result as well. But a thread that ends after its task was
    cancelled leaves that future, and with it a whole video, in the queue of an event loop that may never run again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dropped = False
        self._result: Result | None = None
        self._error: Exception | None = None

    def fill(self, work: Callable[[], Result]) -> None:
        """Keep what `work` returns or raises. The thread calls this."""
        result: Result | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        with self._lock:
            if not self._dropped:
                self._result, self._error = result, error
        # The error's traceback refers to this frame: without these references there is no cycle, and both go at once.
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
