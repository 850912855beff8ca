"""The videos that wait to be decoded."""

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
from decode_pool.messages import Decoded, Job
from decode_pool.networks import Networks
from decode_pool.settings import PoolSettings

Cancelled = Callable[[], bool]

# Between two looks at what waits for the networks, where no job waits for the next.
LOOK_SECONDS = 0.1


@dataclass(frozen=True, eq=False)
class Waiting:
    """A job in the line, the future of what it gives, and whether anybody still wants it.

    deadline: by time.monotonic(), of what the networks make of it.
    for_cpu: whether NVDEC has had it, and left it to a CPU.
    """

    job: Job
    future: Future[Decoded]
    cancelled: Cancelled
    deadline: float = math.inf
    for_cpu: bool = False

    def begin(self) -> bool:
        """Whether it is to be done now; one that nobody wants any more is cancelled."""
        if self.for_cpu:
            return True  # It had begun.
        if self.cancelled():
            self.future.cancel()
        return self.future.set_running_or_notify_cancel()

    def refuse(self, error: Busy) -> None:
        """Let it fail; one that nobody wants any more is cancelled."""
        # Whatever goes wrong, it is answered, and the thread that refuses it lives on.
        with contextlib.suppress(Exception):
            if not self.begin():
                return
        self.future.set_exception(error)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of its clips, by the name of the decode step's output."""
        return self.job.sizes


class WaitingLine:
    """Jobs leave it in the order they came in, but those whose network has no room let others pass.

    A job that its network could not answer by its deadline is refused.

    NVDEC goes first where it is free, because it takes less of the machine; CPUs take all else. So neither waits while
    there is work for it.
    """

    def __init__(self, settings: PoolSettings, networks: Networks) -> None:
        self._settings, self._networks = settings, networks
        self._line: list[Waiting] = []
        self._bytes = 0
        self._free_nvdec = 0
        self._changed = threading.Condition()
        self._closing = False
        self._stuck = threading.Event()
        self._watch = threading.Thread(target=self._keep_looking, name="networks", daemon=True)
        self._watch.start()

    def __len__(self) -> int:
        return len(self._line)

    def put(self, waiting: Waiting) -> None:
        """Raises Busy where as many jobs wait as may, or as many bytes."""
        most, megabytes = self._settings.max_waiting, self._settings.max_waiting_megabytes
        size = len(waiting.job.video)
        with self._changed:
            if self._bytes and self._bytes + size > megabytes * 2**20:
                raise Busy(
                    f"the videos that wait to be decoded and this one have more than {megabytes} MiB; try again later"
                )
            if len(self._line) >= most:
                raise Busy(f"{most} videos wait to be decoded already; try again later")
            self._line.append(waiting)
            self._bytes += size
            self._changed.notify_all()

    def give_back(self, waiting: Waiting) -> None:
        """Let a job that NVDEC could not do be the next of a CPU."""
        with self._changed:
            closing = self._closing
            if not closing:
                self._line.insert(0, replace(waiting, for_cpu=True))
                self._bytes += len(waiting.job.video)
                self._changed.notify_all()
        if closing:
            _fail(waiting)

    def take(self, seconds: float, *, nvdec: bool = False) -> Waiting:
        """The next job whose network has room. Raises queue.Empty after so long without one.

        nvdec: whether NVDEC asks, and not a CPU.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            self._free_nvdec += nvdec
            try:
                return self._wait_for_next(deadline, nvdec=nvdec)
            finally:
                self._free_nvdec -= nvdec
                if nvdec and self._line:
                    self._changed.notify_all()  # What was left to it may be one for a CPU now.

    def _wait_for_next(self, deadline: float, *, nvdec: bool) -> Waiting:
        while True:
            if (found := self._next(nvdec=nvdec)) is not None:
                self._line.remove(found)
                self._bytes -= len(found.job.video)
                if not found.for_cpu:
                    self._begin(found)
                return found
            if self._line:
                self._stuck.set()
            left = deadline - time.monotonic()
            if left <= 0 or self._closing:
                raise queue.Empty
            self._changed.wait(left)

    def _next(self, *, nvdec: bool) -> Waiting | None:
        full: set[str] = set()
        for waiting in self._line:
            if waiting.for_cpu:
                if not nvdec:
                    return waiting  # It has its room.
                continue
            # A small job must not pass a large one that waits for the same network, or that would wait for ever.
            has_room = full.isdisjoint(waiting.sizes) and self._networks.has_room(waiting.sizes)
            # One that seems to be late waits for the next look, which finds it late or not.
            if has_room and self._networks.refusal(waiting.sizes, waiting.deadline):
                continue
            if has_room and (nvdec or not self._free_nvdec):
                return waiting
            full.update(waiting.sizes)
        return None

    def _begin(self, waiting: Waiting) -> None:
        # The callback must not refer to the future: a circle would keep the clips until the collector comes by.
        networks, sizes = self._networks, waiting.sizes
        networks.begin(sizes)
        waiting.future.add_done_callback(lambda _: networks.end(sizes))

    def _keep_looking(self) -> None:
        """While networks are at work: see how fast, who is too late, and whether there is room now."""
        while not self._closing:
            if not self._stuck.wait(LOOK_SECONDS) and not self._networks.are_busy:
                continue
            # Cleared first: whoever gets stuck during the look asks for another.
            self._stuck.clear()
            self._networks.look()
            self._refuse_late()
            with self._changed:
                self._changed.notify_all()

    def _refuse_late(self) -> None:
        refusals: list[tuple[Waiting, Busy]] = []
        with self._changed:
            kept: list[Waiting] = []
            behind: defaultdict[str, list[int]] = defaultdict(list)
            for waiting in self._line:
                if waiting.for_cpu:  # It counts as being decoded.
                    kept.append(waiting)
                elif refusal := self._networks.refusal(waiting.sizes, waiting.deadline, behind=behind):
                    refusals.append((waiting, refusal))
                    self._bytes -= len(waiting.job.video)
                else:
                    kept.append(waiting)
                    for output, size in waiting.sizes.items():
                        behind[output].append(size)
            self._line = kept
        for waiting, refusal in refusals:
            waiting.refuse(refusal)

    def close(self) -> None:
        """Cancel what waits, and let fail what NVDEC had begun."""
        with self._changed:
            self._closing = True
            left, self._line = self._line, []
            self._bytes = 0
            self._stuck.set()
            self._changed.notify_all()
        for waiting in left:
            _fail(waiting)
        self._watch.join()


def _fail(waiting: Waiting) -> None:
    """Cancel it, or, where it had begun, let it fail."""
    if not waiting.future.cancel():
        waiting.future.set_exception(Busy("the server stops; try another one, or again later"))
