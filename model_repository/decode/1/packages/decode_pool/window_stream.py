"""The windows of one video, decoded by a process of its own that may die."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from clip_decode.errors import Busy, Crashed
from clip_decode.limits import Limits
from clip_decode.windows import WindowClips

from .process import WorkerGone, WorkerProcess, start_worker, worker_program
from .settings import PoolSettings
from .window_messages import WindowJob

# Workers in a row that may die without having sent a window: as many as may die before they take a single clip.
ATTEMPTS = 3


class WindowStream:
    """Iterates over the windows of a video. Decoding goes no further ahead than the socket to the worker holds.

    A worker that dies is replaced, and the new one goes on after the last window that came. Iterate in one thread,
    because the kernel kills the worker when the thread that started it ends.

    Args:
        job: the video and the windows.
        settings: max_worker_megabytes and max_decode_seconds, which here is how long a worker may be silent.
        limits: what a video may contain.
        program: what a worker runs, see start_worker.
        on_restart: called each time a dead worker is replaced.

    Iterating raises:
        DecodeError: the worker's own; TimedOut or OutOfMemory; Crashed when three workers in a row died without having
            sent a window; Busy when no worker starts, or after `close`.
    """

    def __init__(
        self,
        job: WindowJob,
        settings: PoolSettings,
        limits: Limits,
        *,
        program: Sequence[str] = (),
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._job, self._settings, self._limits = job, settings, limits
        self._program = tuple(program) or worker_program("window_worker")
        self._on_restart = on_restart
        self._worker: WorkerProcess | None = None
        self._lock, self._is_closed = threading.Lock(), False

    @property
    def pid(self) -> int | None:
        """The process id of the worker, if it lives."""
        worker = self._worker
        return worker.pid if worker is not None and worker.is_alive else None

    def __iter__(self) -> Iterator[WindowClips]:
        job, deaths = self._job, 0
        while True:
            worker = self._start()
            try:
                for window in worker.decode_windows(job):
                    # After a death the next worker begins here.
                    following = replace(job.windows, first_window=window.window.span.number + 1)
                    job, deaths = replace(job, windows=following), 0
                    yield window
                return
            except (Crashed, WorkerGone) as error:
                deaths += 1
                if self._is_closed:
                    raise Busy("nobody waits for this video any more") from None
                if deaths >= ATTEMPTS:
                    if isinstance(error, Crashed):
                        raise
                    raise Busy(f"no decode worker can be started at the moment ({error}); try again later") from error
                with contextlib.suppress(Exception):
                    self._on_restart()
            finally:
                worker.end()

    def _start(self) -> WorkerProcess:
        try:
            worker = start_worker(self._program, self._settings, self._limits)
        except OSError as error:
            # The machine has no process, descriptor or memory left. Its text may name a path of this machine.
            reason = error.strerror or type(error).__name__
            raise Busy(f"no decode worker can be started at the moment ({reason}); try again later") from error
        with self._lock:
            self._worker = worker
            if self._is_closed:
                worker.kill()
        return worker

    def close(self) -> None:
        """Kill the worker, from any thread. The thread that iterates gets Busy, or no more windows."""
        with self._lock:
            self._is_closed = True
            if self._worker is not None:
                self._worker.kill()
