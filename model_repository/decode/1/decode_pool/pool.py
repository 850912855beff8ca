"""A fixed number of workers, a bounded queue before them, and somebody who replaces the dead.

Written here because the libraries do not survive what this must: with workers killed by SIGKILL while 4 MB jobs flow,
pebble 5.2.3 ends in "Unexpected error within the Pool" for good (its workers share one pipe and its lock), and loky and
concurrent.futures declare the whole pool broken when one worker dies. Here each worker has a socket and a thread of its
own, so that there is nothing two of them could break for each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from clip_decode.errors import (
    Busy,
    Crashed,
    Declined,
    DecodeError,
    Failed,
    InvalidRequest,
    OutOfMemory,
    TimedOut,
    VideoError,
)
from clip_decode.limits import Limits
from decode_pool.messages import Decoded, Job
from decode_pool.networks import Networks
from decode_pool.nvdec import NvdecProcess
from decode_pool.process import WorkerGone, WorkerProcess, decode_worker, start_worker
from decode_pool.settings import PoolSettings
from decode_pool.waiting_line import Cancelled, Waiting, WaitingLine

# How long a worker that died while idle stays unnoticed.
LOOK_SECONDS = 0.25
# Workers that die idle, one after the other, before the job that needs one is given up.
TRIES = 3
# Jobs wait so long for workers that do not start, and are refused from then on.
PATIENCE_SECONDS = 5.0
# After two workers that could not start, the next is tried later and later, at last this much.
TRIES_AT_ONCE = 2
LONGEST_PAUSE_SECONDS = 30.0
# Tracebacks; one that comes again is not logged in full.
_REMEMBERED = 64


class WorkersNotStarted(RuntimeError):
    """The machine cannot run decode workers."""


class DecodePool:
    """Decodes videos in worker processes.

    with DecodePool(PoolSettings(), Limits()) as pool:
        decoded = pool.submit(Job(video, geometries, sampling)).result()

    Args:
        settings: how many workers, and what they may use.
        limits: what a video may ask for.
        networks: whether a job may be decoded already. None: every job may.
        program: what a worker runs, see start_worker.
        nvdec: processes that decode by NVDEC beside the workers, none by default. What they can not do, for whatever
            reason, a worker does.
        on_restart: called in a thread of the pool each time a dead worker has been replaced.
        on_decline: called, likewise, each time NVDEC leaves a video to a worker.
        log: called, likewise, with each line that an operator should read.
    """

    def __init__(
        self,
        settings: PoolSettings,
        limits: Limits,
        *,
        networks: Networks | None = None,
        program: Sequence[str] = (),
        nvdec: Sequence[NvdecProcess] = (),
        on_restart: Callable[[], None] = lambda: None,
        on_decline: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings, self._limits = settings, limits
        self._program = tuple(program) or decode_worker()
        self._on_restart, self._on_decline, self._log = on_restart, on_decline, log
        self._logged: deque[str] = deque(maxlen=_REMEMBERED)
        self._line = WaitingLine(settings, networks or Networks({}))
        self._closing = threading.Event()
        # The kernel kills a worker when the thread that started it ends, so each thread starts its own.
        self._posts = [_Post(self, number) for number in range(settings.worker_count(len(nvdec)))]
        self._nvdec_posts = [
            _NvdecPost(self, process, number) for process in nvdec for number in range(process.streams)
        ]
        for post in (*self._posts, *self._nvdec_posts):
            post.start()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job, *, cancelled: Cancelled = lambda: False, deadline: float = math.inf) -> Future[Decoded]:
        """Queue a job. Its future is cancelled, and it is not run, when `cancelled()` is true as its turn comes.

        deadline: by time.monotonic(). Where its network would be done with it later, its future raises Busy.

        Raises:
            Busy: as many jobs wait as may, or as many bytes.
        """
        future: Future[Decoded] = Future()
        self._line.put(Waiting(job, future, cancelled, deadline))
        return future

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._line)

    @property
    def pids(self) -> list[int]:
        """Of the workers that live."""
        return [post.worker.pid for post in self._posts if post.worker is not None and post.worker.is_alive]

    @property
    def nvdec_pids(self) -> list[int]:
        """Of the NVDEC processes that live."""
        workers = [post.worker for post in self._nvdec_posts if post.is_leader]
        return [worker.pid for worker in workers if worker is not None and worker.is_alive]

    @property
    def can_work(self) -> bool:
        """Whether there is a worker, or one may come soon."""
        return any(post.is_hopeful for post in self._posts)

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until every worker runs, and NVDEC where it can be had.

        Raises:
            WorkersNotStarted: a worker could not start; the message has its last words.
            TimeoutError: one did not so far.
        """
        for post in self._posts:
            post.first_start.result(seconds)
        for post in self._nvdec_posts:
            if post.is_leader:
                with contextlib.suppress(WorkersNotStarted):
                    post.first_start.result(seconds)

    def close(self) -> None:
        """End the workers; jobs under way fail, jobs that wait are cancelled."""
        self._closing.set()
        for post in (*self._posts, *self._nvdec_posts):
            post.close()
        self._line.close()

    def log(self, message: str, error: BaseException) -> None:
        """Log what happened, then the notes of `error`, line by line; of notes that come again, the last line."""
        self._log(message)
        for note in getattr(error, "__notes__", ()):
            lines = note.strip().splitlines()
            if note in self._logged:
                lines = [f"as logged before: {lines[-1]}"]
            self._logged.append(note)
            for line in lines:
                self._log(f"    {line}")


class _Post:
    """One place in the pool: the thread that holds it, and the worker that has it now.

    Attributes:
        worker: alive, dead and not yet replaced, or None.
        first_start: done when the first worker is ready, or failed to become so.
    """

    def __init__(self, pool: DecodePool, number: int) -> None:
        self.pool = pool
        self.worker: WorkerProcess | None = None
        self.first_start: Future[None] = Future()
        self._failed_starts = 0  # in a row
        self._failing_since = self._next_start = 0.0
        self._thread = threading.Thread(target=self._hold, name=f"decode-{number}", daemon=True)

    @property
    def is_hopeful(self) -> bool:
        """Whether there is a worker, or has been one a moment ago."""
        return not self._failed_starts or time.monotonic() < self._failing_since + PATIENCE_SECONDS

    def start(self) -> None:
        """Start the thread, which starts a worker."""
        self._thread.start()

    def close(self) -> None:
        """Let the thread end; the pool is closing."""
        if self.worker is not None:
            self.worker.kill()
        self._thread.join()

    def _hold(self) -> None:
        pool = self.pool
        while not pool._closing.is_set():
            if self._has_worker() or not pool.can_work:
                with contextlib.suppress(queue.Empty):
                    self._serve(pool._line.take(LOOK_SECONDS))
            else:
                # Leave the jobs to others.
                pool._closing.wait(LOOK_SECONDS)
        if self.worker is not None:
            self.worker.end()

    def _serve(self, waiting: Waiting) -> None:
        """Bring a job to its end, whatever happens: its future is done, and this thread lives on."""
        job, future = waiting.job, waiting.future
        try:
            if not waiting.begin():
                return
            decoded = self._decode(job)
        except DecodeError as error:
            if isinstance(error, Crashed | Failed | OutOfMemory | TimedOut):
                self._log_video(job, error)
            # Its traceback leads to this frame, hence to the future, which would keep the video until the collector
            # comes by.
            future.set_exception(error.with_traceback(None))
        except Exception as error:
            failed = Failed(f"handing this video to a decoder met a defect of the server ({type(error).__name__})")
            failed.add_note(traceback.format_exc())
            self._log_video(job, failed)
            future.set_exception(failed)
        else:
            future.set_result(decoded)

    def _decode(self, job: Job) -> Decoded:
        for _ in range(TRIES):
            while not self._has_worker():
                if not self.pool.can_work or self.pool._closing.wait(LOOK_SECONDS):
                    raise Busy(
                        "no decode worker can be started at the moment, the server's log says why; try again later"
                    )
            assert self.worker is not None
            # It had not begun: another may, and nobody notices.
            with contextlib.suppress(WorkerGone):
                return self.worker.decode(job)
        raise Busy(f"{TRIES} decode workers died before they could take this video; try again later")

    def _has_worker(self) -> bool:
        """Whether a worker lives; a dead one is replaced, unless others could not start a moment ago."""
        if self.worker is not None and self.worker.is_alive:
            return True
        if self.pool._closing.is_set() or time.monotonic() < self._next_start:
            return False
        try:
            self._start()
        except Exception as error:
            if not self._failed_starts:
                self._failing_since = time.monotonic()
            self._failed_starts += 1
            late = self._failed_starts - TRIES_AT_ONCE
            pause = min(LOOK_SECONDS * 2**late, LONGEST_PAUSE_SECONDS) if late >= 0 else 0.0
            self._next_start = time.monotonic() + pause
            if not self.pool._closing.is_set():
                with contextlib.suppress(Exception):
                    self.pool.log(f"{error}; the next try is in {pause:g} s", error)
            if not self.first_start.done():
                self.first_start.set_exception(WorkersNotStarted(str(error)))
            return False
        self._failed_starts = 0
        return True

    def _start(self) -> None:
        if self.worker is not None:
            self.worker.end()
            self.worker = None
        self.worker = start_worker(self.pool._program, self.pool._settings, self.pool._limits)
        self.worker.wait_until_ready()
        if self.first_start.done():
            self.pool._on_restart()
        else:
            self.first_start.set_result(None)

    def _log_video(self, job: Job, error: DecodeError) -> None:
        # Enough to find the video again, which the request does not name. Whatever becomes of it, the job is answered.
        with contextlib.suppress(Exception):
            digest = hashlib.sha256(job.video).hexdigest()
            message = f"[{error.code}] {error.message} (a video of {len(job.video)} bytes, SHA-256 {digest})"
            self.pool.log(message, error)


class _NvdecPost(_Post):
    """A place for one of the videos that an NVDEC process decodes at a time. The first of them starts the process."""

    def __init__(self, pool: DecodePool, process: NvdecProcess, number: int) -> None:
        super().__init__(pool, number)
        self._process, self._number = process, number
        self._started = 0.0
        self._early_deaths = 0  # in a row

    @property
    def is_leader(self) -> bool:
        """Whether it starts the process."""
        return self._number == 0

    def _hold(self) -> None:
        pool = self.pool
        while not pool._closing.is_set():
            if self._has_worker():
                with contextlib.suppress(queue.Empty):
                    self._serve(pool._line.take(LOOK_SECONDS, nvdec=True))
            else:
                pool._closing.wait(LOOK_SECONDS)
        if self.worker is not None:
            self.worker.end()

    def _serve(self, waiting: Waiting) -> None:
        """Do a job, or leave it to a CPU: whatever goes wrong here costs time alone."""
        try:
            if not waiting.begin():
                return
            assert self.worker is not None
            decoded = self.worker.decode(waiting.job)
        except (InvalidRequest, VideoError) as error:
            # As a CPU would say.
            waiting.future.set_exception(error.with_traceback(None))
        except (Declined, WorkerGone):
            self._give_back(waiting)
        except Exception as error:
            if isinstance(error, DecodeError):
                self._log_video(waiting.job, error)
            else:
                error.add_note(traceback.format_exc())
                self.pool.log(f"NVDEC failed ({type(error).__name__}); a CPU decodes the video", error)
            self._give_back(waiting)
        else:
            waiting.future.set_result(replace(decoded, decoder="nvdec"))

    def _give_back(self, waiting: Waiting) -> None:
        self.pool._line.give_back(waiting)
        with contextlib.suppress(Exception):
            self.pool._on_decline()

    def _has_worker(self) -> bool:
        if self.is_leader:
            self._note_death()
            return super()._has_worker()
        if self.worker is not None and self.worker.is_alive:
            return True
        found = self._process.worker(self._number)
        if found is None or found is self.worker:
            return False
        if self.worker is not None:
            self.worker.end()
        self.worker = found
        return True

    def _note_death(self) -> None:
        """Start a process that keeps dying later and later: each death costs the videos that it has some time."""
        if self.worker is None or self.worker.is_alive:
            return
        self.worker.end()
        self.worker = None
        lived = time.monotonic() - self._started
        self._early_deaths = self._early_deaths + 1 if lived < LONGEST_PAUSE_SECONDS else 0
        self._next_start = time.monotonic() + min(LOOK_SECONDS * 2**self._early_deaths, LONGEST_PAUSE_SECONDS)

    def _start(self) -> None:
        if self.worker is not None:
            self.worker.end()
            self.worker = None
        self.worker = self._process.start(self.pool._limits)
        self._started = time.monotonic()
        if self.first_start.done():
            self.pool._on_restart()
        else:
            self.first_start.set_result(None)
