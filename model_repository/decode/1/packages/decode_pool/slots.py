"""Worker slots: each is a thread of the pool that keeps one worker running and gives it jobs."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from clip_decode.errors import (
    Busy,
    Crashed,
    DecodeError,
    Failed,
    OutOfMemory,
    TimedOut,
)
from clip_decode.limits import Limits

from .job_queue import JobQueue, QueuedJob
from .messages import Decoded, Job
from .process import WorkerGone, WorkerNotStarted, WorkerProcess, start_worker
from .settings import PoolSettings

# Between two looks whether an idle worker has died.
POLL_SECONDS = 0.25
# Workers that may die before they take a job; then the job fails.
ATTEMPTS = 3
# When workers do not start, jobs wait for this long. After it they are refused.
START_GRACE_SECONDS = 5.0
# After two starts that failed, the pause before the next one doubles, up to this.
IMMEDIATE_STARTS = 2
MAX_PAUSE_SECONDS = 30.0
# Tracebacks; one that comes again is not logged in full.
_REMEMBERED = 64


class ErrorLog:
    """Writes errors line by line, with their notes, such as a worker's traceback. Of a repeated note, the last line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._logged: deque[str] = deque(maxlen=_REMEMBERED)

    def error(self, message: str, error: BaseException) -> None:
        """Log the message, then the notes of `error`."""
        self._write(message)
        for note in getattr(error, "__notes__", ()):
            lines = note.strip().splitlines()
            if note in self._logged:
                lines = [f"as logged before: {lines[-1]}"]
            self._logged.append(note)
            for line in lines:
                self._write(f"    {line}")

    def video_error(self, job: Job, error: DecodeError) -> None:
        """Log the error of a video, with what identifies the video, which the request does not name."""
        # A log that cannot be written must not cost the job its answer.
        with contextlib.suppress(Exception):
            digest = hashlib.sha256(job.video).hexdigest()
            self.error(f"[{error.code}] {error.message} (a video of {len(job.video)} bytes, SHA-256 {digest})", error)


@dataclass
class SharedState:
    """What the slots of one pool share; see DecodePool for the arguments."""

    settings: PoolSettings
    limits: Limits
    program: Sequence[str]
    queue: JobQueue
    log: ErrorLog
    on_restart: Callable[[], None]
    on_decline: Callable[[], None]
    closing: threading.Event = field(default_factory=threading.Event)
    cpu_slots: list[WorkerSlot] = field(default_factory=list)

    @property
    def can_decode(self) -> bool:
        """Whether there is a worker on a CPU, or may be one soon."""
        return any(slot.may_start for slot in self.cpu_slots)


class WorkerSlot:
    """A thread of the pool, and its worker, which it replaces when it dies.

    Attributes:
        worker: alive, dead and not yet replaced, or None.
        first_start: done when the first worker is ready, or could not be started.
    """

    is_nvdec = False

    def __init__(self, shared: SharedState, number: int) -> None:
        self.shared = shared
        self.worker: WorkerProcess | None = None
        self.first_start: Future[None] = Future()
        self._failed_starts = 0  # in a row
        self._failing_since = self._next_start = 0.0
        # The kernel kills a worker when the thread that started it ends, so each thread starts its own.
        self._thread = threading.Thread(target=self._run, name=f"decode-{number}", daemon=True)

    @property
    def live_pid(self) -> int | None:
        """The worker's process id, if it lives."""
        worker = self.worker
        return worker.pid if worker is not None and worker.is_alive else None

    @property
    def may_start(self) -> bool:
        """Whether there is a worker, or starting one has not failed for long."""
        return not self._failed_starts or time.monotonic() < self._failing_since + START_GRACE_SECONDS

    def start(self) -> None:
        """Start the thread, which starts a worker."""
        self._thread.start()

    def close(self) -> None:
        """Wait until the thread has ended. The pool is closing."""
        if (worker := self.worker) is not None:
            worker.kill()
        self._thread.join()

    def _run(self) -> None:
        shared = self.shared
        while not shared.closing.is_set():
            if self._takes_jobs():
                with contextlib.suppress(queue.Empty):
                    self._handle(shared.queue.take(POLL_SECONDS, nvdec=self.is_nvdec))
            else:
                shared.closing.wait(POLL_SECONDS)
        if self.worker is not None:
            self.worker.end()

    def _takes_jobs(self) -> bool:
        # When no slot can start a worker, all take jobs to refuse them.
        return self._has_worker() or not self.shared.can_decode

    def _handle(self, entry: QueuedJob) -> None:
        """Complete the job's future, whatever happens. This thread must go on."""
        job, future, log = entry.job, entry.future, self.shared.log
        try:
            if not entry.start():
                return
            decoded = self._decode(job)
        except DecodeError as error:
            if isinstance(error, Crashed | Failed | OutOfMemory | TimedOut):
                log.video_error(job, error)
            # Its traceback refers to this frame, and so to the future: the cycle would keep the video until the
            # garbage collector runs.
            future.set_exception(error.with_traceback(None))
        except Exception as error:
            failed = Failed(f"handing this video to a decoder met a defect of the server ({type(error).__name__})")
            failed.add_note(traceback.format_exc())
            log.video_error(job, failed)
            future.set_exception(failed)
        else:
            future.set_result(decoded)

    def _decode(self, job: Job) -> Decoded:
        for _ in range(ATTEMPTS):
            while not self._has_worker():
                if not self.shared.can_decode or self.shared.closing.wait(POLL_SECONDS):
                    raise Busy(
                        "no decode worker can be started at the moment, the server's log says why; try again later"
                    )
            assert self.worker is not None
            # A worker that died before it took the job costs time only.
            with contextlib.suppress(WorkerGone):
                return self.worker.decode(job)
        raise Busy(f"{ATTEMPTS} decode workers died before they could take this video; try again later")

    def _has_worker(self) -> bool:
        """Whether a worker lives. Replaces a dead one, unless a pause after failed starts is not over."""
        if self.worker is not None and self.worker.is_alive:
            return True
        if self.shared.closing.is_set() or time.monotonic() < self._next_start:
            return False
        try:
            self._start_worker()
        except Exception as error:
            self._on_failed_start(error)
            return False
        self._failed_starts = 0
        return True

    def _on_failed_start(self, error: Exception) -> None:
        if not self._failed_starts:
            self._failing_since = time.monotonic()
        self._failed_starts += 1
        excess = self._failed_starts - IMMEDIATE_STARTS
        pause = min(POLL_SECONDS * 2**excess, MAX_PAUSE_SECONDS) if excess >= 0 else 0.0
        self._next_start = time.monotonic() + pause
        if not self.shared.closing.is_set():
            with contextlib.suppress(Exception):
                self.shared.log.error(f"{error}; the next try is in {pause:g} s", error)
        if not self.first_start.done():
            self.first_start.set_exception(WorkerNotStarted(str(error)))

    def _start_worker(self) -> None:
        if self.worker is not None:
            self.worker.end()
            self.worker = None
        self._launch()
        if self.first_start.done():
            self.shared.on_restart()
        else:
            self.first_start.set_result(None)

    def _launch(self) -> None:
        """Set `worker` to a new one, and wait until it is ready."""
        self.worker = start_worker(self.shared.program, self.shared.settings, self.shared.limits)
        self.worker.wait_until_ready()
