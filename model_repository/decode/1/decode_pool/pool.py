"""A fixed number of workers, a bounded queue before them, and somebody who replaces the dead.

Written here because the libraries do not survive what this must: with workers killed by SIGKILL while 4 MB jobs flow,
pebble 5.2.3 ends in "Unexpected error within the Pool" for good (its workers share one pipe and its lock), and loky and
concurrent.futures declare the whole pool broken when one worker dies. Here each worker has a socket and a thread of its
own, so that there is nothing two of them could break for each other.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from clip_decode.errors import Busy, Crashed, DecodeError
from clip_decode.limits import Limits
from decode_pool.messages import Decoded, Job
from decode_pool.process import WorkerGone, WorkerProcess
from decode_pool.settings import PoolSettings

# How long a worker that died while idle stays unnoticed.
LOOK_SECONDS = 0.25
# Workers that die as they start, before the job that needed one is given up.
STARTS_IN_A_ROW = 3

Cancelled = Callable[[], bool]


class DecodePool:
    """Decodes videos in worker processes.

    with DecodePool(PoolSettings(), Limits()) as pool:
        decoded = pool.submit(Job(video, geometries, sampling)).result()

    on_restart: called in a thread of the pool each time a dead worker is replaced.
    """

    def __init__(
        self, settings: PoolSettings, limits: Limits, *, on_restart: Callable[[], None] = lambda: None
    ) -> None:
        self._settings, self._limits, self._on_restart = settings, limits, on_restart
        self._jobs: queue.Queue[tuple[Job, Future[Decoded], Cancelled]] = queue.Queue(settings.max_waiting)
        self._waiting_bytes, self._count = 0, threading.Lock()
        self._closing = threading.Event()
        # The kernel kills a worker when the thread that started it ends, so each thread starts its own.
        self._posts = [_Post(self, number) for number in range(settings.worker_count)]

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job, *, cancelled: Cancelled = lambda: False) -> Future[Decoded]:
        """Queue a job. Its future is cancelled, and it is not run, when `cancelled()` is true as its turn comes.

        Raises:
            Busy: as many jobs wait as may, or as many bytes.
        """
        future: Future[Decoded] = Future()
        megabytes = self._settings.max_waiting_megabytes
        with self._count:
            if self._waiting_bytes and self._waiting_bytes + len(job.video) > megabytes * 2**20:
                raise Busy(
                    f"the videos that wait for {len(self._posts)} decoders and this one have more than {megabytes} MiB;"
                    " try again later"
                )
            try:
                self._jobs.put_nowait((job, future, cancelled))
            except queue.Full:
                raise Busy(
                    f"{self._settings.max_waiting} videos wait for {len(self._posts)} decoders already; try again later"
                ) from None
            self._waiting_bytes += len(job.video)
        return future

    def _take(self) -> tuple[Job, Future[Decoded], Cancelled]:
        """The next job in the queue. Raises queue.Empty after LOOK_SECONDS without one."""
        job, future, cancelled = self._jobs.get(timeout=LOOK_SECONDS)
        with self._count:
            self._waiting_bytes -= len(job.video)
        return job, future, cancelled

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._jobs.qsize()

    @property
    def pids(self) -> list[int]:
        """Of the workers that live."""
        return [post.worker.pid for post in self._posts if post.worker is not None and post.worker.is_alive]

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until every worker runs. Raises RuntimeError when one does not."""
        for post in self._posts:
            if not post.ready.wait(seconds):
                raise RuntimeError("the decode workers do not start; their error is in the log above")

    def close(self) -> None:
        """End the workers; jobs under way fail, jobs that wait are cancelled."""
        self._closing.set()
        for post in self._posts:
            post.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()[1].cancel()


class _Post:
    """One place in the pool: the thread that holds it, and the worker that has it now."""

    def __init__(self, pool: DecodePool, number: int) -> None:
        self.pool = pool
        self.worker: WorkerProcess | None = None
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"decode-{number}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread end; the pool is closing."""
        if self.worker is not None:
            self.worker.kill()
        self._thread.join()

    def _hold(self) -> None:
        pool = self.pool
        self._start()
        while not pool._closing.is_set():
            try:
                job, future, cancelled = pool._take()
            except queue.Empty:
                self._replace_if_dead()
                continue
            if cancelled():
                future.cancel()
            if future.set_running_or_notify_cancel():
                self._run(job, future)
                # Let go of a video that may be large before waiting for the next.
            del job, future, cancelled
        if self.worker is not None:
            self.worker.end()

    def _run(self, job: Job, future: Future[Decoded]) -> None:
        for _ in range(STARTS_IN_A_ROW):
            try:
                assert self.worker is not None
                decoded = self.worker.decode(job)
            except WorkerGone:
                # It had not begun: another may, and nobody notices.
                self._replace()
            except DecodeError as error:
                future.set_exception(error)
                self._replace_if_dead()
                return
            else:
                future.set_result(decoded)
                return
        future.set_exception(Crashed("no process could be started to decode this video"))

    def _start(self) -> None:
        self.worker = WorkerProcess(self.pool._settings, self.pool._limits)
        with contextlib.suppress(WorkerGone):
            self.worker.wait_until_ready()
            self.ready.set()

    def _replace_if_dead(self) -> None:
        if self.worker is not None and not self.worker.is_alive:
            self._replace()

    def _replace(self) -> None:
        if self.pool._closing.is_set():
            return
        if self.worker is not None:
            self.worker.end()
        self._start()
        self.pool._on_restart()
