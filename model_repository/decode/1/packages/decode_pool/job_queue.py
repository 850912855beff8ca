"""The queue of videos that wait to be decoded."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property

from clip_decode.errors import Busy

from .admission import NetworkBacklog
from .messages import Decoded, Job
from .settings import PoolSettings

Cancelled = Callable[[], bool]

# Between two polls of the networks' backlog, when no job waits for the next.
POLL_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class QueuedJob:
    """A job, the future of its result, and whether anybody still wants it.

    deadline: time.monotonic() by which the network must be done with the clips.
    cpu_only: NVDEC has had the job and left it to a CPU.
    """

    job: Job
    future: Future[Decoded]
    cancelled: Cancelled
    deadline: float = math.inf
    cpu_only: bool = False

    def start(self) -> bool:
        """Whether to decode it now. Cancels a job that nobody wants any more."""
        if self.cpu_only:
            return True  # NVDEC had started it.
        if self.cancelled():
            self.future.cancel()
        return self.future.set_running_or_notify_cancel()

    def refuse(self, error: Busy) -> None:
        """Fail with this error. Cancels a job that nobody wants any more."""
        # Whatever `cancelled` raises, the job gets its answer, and the thread goes on.
        with contextlib.suppress(Exception):
            if not self.start():
                return
        self.future.set_exception(error)

    def close(self) -> None:
        """Cancel it, or fail where it had started."""
        if not self.future.cancel():
            self.future.set_exception(Busy("the server stops; try another one, or again later"))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of its clips, by the name of the decode step's output."""
        return self.job.sizes


class JobQueue:
    """Jobs leave in the order in which they came, but a job whose network has no room lets others pass.

    The queue refuses a job that its network could not answer by the job's deadline.

    A free NVDEC gets a job first, because it takes less of the machine; CPUs get all others. So neither of them idles
    while there is work for it.
    """

    def __init__(self, settings: PoolSettings, backlog: NetworkBacklog) -> None:
        self._settings, self._backlog = settings, backlog
        self._jobs: list[QueuedJob] = []
        self._bytes = 0
        self._free_nvdec = 0
        self._changed = threading.Condition()
        self._closing = False
        self._blocked = threading.Event()
        self._poller = threading.Thread(target=self._poll_backlog, name="backlog", daemon=True)
        self._poller.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, entry: QueuedJob) -> None:
        """Add a job. Raises Busy when the queue has as many jobs, or as many bytes, as it may."""
        most, megabytes = self._settings.max_waiting, self._settings.max_waiting_megabytes
        size = len(entry.job.video)
        with self._changed:
            if self._bytes and self._bytes + size > megabytes * 2**20:
                raise Busy(
                    f"the videos that wait to be decoded and this one have more than {megabytes} MiB; try again later"
                )
            if len(self._jobs) >= most:
                raise Busy(f"{most} videos wait to be decoded already; try again later")
            self._jobs.append(entry)
            self._bytes += size
            self._changed.notify_all()

    def requeue(self, entry: QueuedJob) -> None:
        """Make a job that NVDEC could not do the next job for a CPU."""
        with self._changed:
            closing = self._closing
            if not closing:
                self._jobs.insert(0, replace(entry, cpu_only=True))
                self._bytes += len(entry.job.video)
                self._changed.notify_all()
        if closing:
            entry.close()

    def take(self, seconds: float, *, nvdec: bool = False) -> QueuedJob:
        """The next job whose network has room. Raises queue.Empty after so many seconds without one.

        nvdec: whether NVDEC asks, or a CPU.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            self._free_nvdec += nvdec
            try:
                return self._wait_for_next(deadline, nvdec=nvdec)
            finally:
                self._free_nvdec -= nvdec
                if nvdec and self._jobs:
                    self._changed.notify_all()  # A CPU may take now what was left to this NVDEC.

    def _wait_for_next(self, deadline: float, *, nvdec: bool) -> QueuedJob:
        while True:
            if (found := self._find_next(nvdec=nvdec)) is not None:
                self._jobs.remove(found)
                self._bytes -= len(found.job.video)
                if not found.cpu_only:
                    self._start_decoding(found)
                return found
            if self._jobs:
                self._blocked.set()
            left = deadline - time.monotonic()
            if left <= 0 or self._closing:
                raise queue.Empty
            self._changed.wait(left)

    def _find_next(self, *, nvdec: bool) -> QueuedJob | None:
        full: set[str] = set()
        for entry in self._jobs:
            if entry.cpu_only:
                if not nvdec:
                    return entry  # Its room in the backlog is still taken.
                continue
            # A small job must not pass a large one that waits for the same network: the large one might wait for ever.
            has_room = full.isdisjoint(entry.sizes) and self._backlog.has_room(entry.sizes)
            # A job that seems to be late waits for the next poll, which decides.
            if has_room and self._backlog.deadline_error(entry.sizes, entry.deadline):
                continue
            if has_room and (nvdec or not self._free_nvdec):
                return entry
            full.update(entry.sizes)
        return None

    def _start_decoding(self, entry: QueuedJob) -> None:
        # The callback must not refer to the future: the cycle would keep the clips until the garbage collector runs.
        backlog, sizes = self._backlog, entry.sizes
        backlog.start_decoding(sizes)
        entry.future.add_done_callback(lambda _: backlog.end_decoding(sizes))

    def _poll_backlog(self) -> None:
        """While networks work: measure how fast, refuse jobs that are too late, and wake up who waits for room."""
        while not self._closing:
            if not self._blocked.wait(POLL_SECONDS) and not self._backlog.is_busy:
                continue
            # Cleared first: a thread that finds no job during the poll asks for another poll.
            self._blocked.clear()
            self._backlog.poll()
            self._refuse_late()
            with self._changed:
                self._changed.notify_all()

    def _refuse_late(self) -> None:
        refused: list[tuple[QueuedJob, Busy]] = []
        with self._changed:
            kept: list[QueuedJob] = []
            ahead: defaultdict[str, list[int]] = defaultdict(list)
            for entry in self._jobs:
                if entry.cpu_only:  # The backlog counts it as being decoded.
                    kept.append(entry)
                elif error := self._backlog.deadline_error(entry.sizes, entry.deadline, ahead=ahead):
                    refused.append((entry, error))
                    self._bytes -= len(entry.job.video)
                else:
                    kept.append(entry)
                    for output, size in entry.sizes.items():
                        ahead[output].append(size)
            self._jobs = kept
        for entry, error in refused:
            entry.refuse(error)

    def close(self) -> None:
        """Cancel what waits, and fail what NVDEC had started."""
        with self._changed:
            self._closing = True
            left, self._jobs = self._jobs, []
            self._bytes = 0
            self._blocked.set()
            self._changed.notify_all()
        for entry in left:
            entry.close()
        self._poller.join()
