"""The videos that wait to be decoded."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

from clip_decode.errors import Busy
from decode_pool.messages import Decoded, Job
from decode_pool.networks import Networks
from decode_pool.settings import PoolSettings

Cancelled = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Waiting:
    """A job in the line, the future of what it gives, and whether anybody still wants it."""

    job: Job
    future: Future[Decoded]
    cancelled: Cancelled

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of its clips, by the name of the decode step's output."""
        return self.job.sizes


class WaitingLine:
    """Jobs leave it in the order they came in, but those whose network has no room let others pass."""

    def __init__(self, settings: PoolSettings, networks: Networks) -> None:
        self._settings, self._networks = settings, networks
        self._line: list[Waiting] = []
        self._bytes = 0
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
            self._changed.notify()

    def take(self, seconds: float) -> Waiting:
        """The next job whose network has room. Raises queue.Empty after so long without one."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                if (found := self._next()) is not None:
                    self._line.remove(found)
                    self._bytes -= len(found.job.video)
                    self._begin(found)
                    return found
                if self._line:
                    self._stuck.set()
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    raise queue.Empty
                self._changed.wait(left)

    def _next(self) -> Waiting | None:
        full: set[str] = set()
        for waiting in self._line:
            # A small job must not pass a large one that waits for the same network, or that would wait for ever.
            if full.isdisjoint(waiting.sizes) and self._networks.has_room(waiting.sizes):
                return waiting
            full.update(waiting.sizes)
        return None

    def _begin(self, waiting: Waiting) -> None:
        # The callback must not refer to the future: a circle would keep the clips until the collector comes by.
        networks, sizes = self._networks, waiting.sizes
        networks.begin(sizes)
        waiting.future.add_done_callback(lambda _: networks.end(sizes))

    def _keep_looking(self) -> None:
        """While a job waits for its network: see whether there is room now."""
        while not self._closing:
            self._stuck.wait()
            # Cleared first: whoever gets stuck during the look asks for another.
            self._stuck.clear()
            self._networks.look()
            with self._changed:
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel what waits."""
        with self._changed:
            self._closing = True
            left, self._line = self._line, []
            self._bytes = 0
            self._stuck.set()
            self._changed.notify_all()
        for waiting in left:
            waiting.future.cancel()
        self._watch.join()
