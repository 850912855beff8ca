"""A pool of decode workers: a bounded queue, a fixed number of worker processes, and a replacement for each that dies.

The libraries do not survive what this pool must. When workers are killed by SIGKILL while 4 MB jobs flow, pebble 5.2.3
ends in "Unexpected error within the Pool" for good, because its workers share one pipe and its lock; loky and
concurrent.futures declare the whole pool broken when one worker dies. Here each worker has a socket and a thread of its
own, so two workers share nothing that one of them could break.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from clip_decode.limits import Limits

from .admission import NetworkBacklog
from .job_queue import Cancelled, JobQueue, QueuedJob
from .messages import Decoded, Job
from .nvdec import NvdecProcess
from .nvdec_slot import NvdecSlot
from .process import WorkerNotStarted, worker_program
from .settings import PoolSettings
from .slots import ErrorLog, SharedState, WorkerSlot


class DecodePool:
    """Decodes videos in worker processes.

    with DecodePool(PoolSettings(), Limits()) as pool:
        decoded = pool.submit(Job(video, geometries, sampling)).result()

    Args:
        settings: how many workers, and what they may use.
        limits: what a video may contain.
        backlog: decides whether a job may be decoded already. None: every job may.
        program: what a worker runs, see start_worker.
        nvdec: processes that decode with NVDEC beside the workers. A worker decodes every video that they cannot.
        on_restart: called in a thread of the pool each time a dead worker has been replaced.
        on_decline: called in such a thread each time NVDEC leaves a video to a worker.
        log: called in such a thread with each line for the operator.
    """

    def __init__(
        self,
        settings: PoolSettings,
        limits: Limits,
        *,
        backlog: NetworkBacklog | None = None,
        program: Sequence[str] = (),
        nvdec: Sequence[NvdecProcess] = (),
        on_restart: Callable[[], None] = lambda: None,
        on_decline: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._queue = JobQueue(settings, backlog or NetworkBacklog({}))
        shared = SharedState(
            settings,
            limits,
            tuple(program) or worker_program("worker"),
            self._queue,
            ErrorLog(log),
            on_restart=on_restart,
            on_decline=on_decline,
        )
        self._closing, self._slots = shared.closing, shared.cpu_slots
        self._slots.extend(WorkerSlot(shared, number) for number in range(settings.worker_count(len(nvdec))))
        self._nvdec_slots = [
            NvdecSlot(shared, process, number) for process in nvdec for number in range(process.streams)
        ]
        for slot in (*self._slots, *self._nvdec_slots):
            slot.start()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job, *, cancelled: Cancelled = lambda: False, deadline: float = math.inf) -> Future[Decoded]:
        """Queue a job. When `cancelled()` is true as the job's turn comes, its future is cancelled and it is not run.

        deadline: time.monotonic(). When the job's network would be done later, the future raises Busy.

        Raises:
            Busy: the queue has as many jobs, or as many bytes, as it may.
        """
        future: Future[Decoded] = Future()
        self._queue.put(QueuedJob(job, future, cancelled, deadline))
        return future

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that live."""
        return [pid for slot in self._slots if (pid := slot.live_pid) is not None]

    @property
    def nvdec_pids(self) -> list[int]:
        """Process ids of the NVDEC processes that live."""
        return [pid for slot in self._nvdec_slots if slot.starts_process and (pid := slot.live_pid) is not None]

    def wait_until_ready(self, seconds: float) -> None:
        """Wait until every worker runs, and NVDEC where it can be used.

        Raises:
            WorkerNotStarted: a worker could not start; the message has the last line that it wrote.
            TimeoutError: a worker has not started yet.
        """
        for slot in self._slots:
            slot.first_start.result(seconds)
        for slot in self._nvdec_slots:
            if slot.starts_process:
                with contextlib.suppress(WorkerNotStarted):
                    slot.first_start.result(seconds)

    def close(self) -> None:
        """End the workers. Jobs that are being decoded fail; jobs that wait are cancelled."""
        self._closing.set()
        for slot in (*self._slots, *self._nvdec_slots):
            slot.close()
        self._queue.close()
