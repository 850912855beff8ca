"""Admission control: how many decoded requests wait for each network, and whether the decode step may add one.

Triton could limit a network's queue itself (`default_queue_policy`), but its scheduler then stops prefetching, and a
request that arrives while the network runs may wait half a second longer (benchmarks/stalls.py). So the queues of the
networks have no limit, and the decode step keeps them short: it decodes a video only while its network has room. All
other requests wait before they are decoded, when they are still small and their deadline still counts.

Triton runs a request that waits for a network even after its deadline. So the decode step also estimates each network's
throughput, and refuses a request that the network would answer too late.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from clip_decode.errors import Busy

# Bytes of clips, by the name of the decode step's output.
Sizes = Mapping[str, int]
NONE_AHEAD: Mapping[str, Sequence[int]] = {}

# Between two polls: a tenth of the time in which a queue moves, so that one run of a slow network does not cost a
# hundred polls. A poll takes Triton 0.2 ms.
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.005, 0.25
POLL_SHARE = 0.1

# The weight of an earlier run, next to the run after it.
KEPT_SHARE = 0.7
# Of the time between two runs. A poll later than this after the poll before does not tell when a run began.
COARSE_SHARE = 0.5
# Without new runs, the estimate of a network's speed doubles after so many seconds, or after so many of its runs: a
# network that was slow need not stay slow, and the requests that are admitted then measure it.
DOUBLING_SECONDS, DOUBLING_RUNS = 5.0, 2.0
# Runs differ, and a response takes time to arrive.
MARGIN = 1.2


@dataclass(frozen=True)
class BacklogLimit:
    """How much may wait for the networks that take the clips of one output.

    Attributes:
        networks: their names in Triton.
        requests: how many requests; one may always wait.
        megabytes: how many MiB of clips; one request may always wait.
    """

    networks: tuple[str, ...]
    requests: int
    megabytes: int

    @classmethod
    def from_config(cls, text: str) -> BacklogLimit:
        """Read the parameter QUEUE_<output>. Raises ValueError."""
        try:
            values = json.loads(text)
            limit = cls(tuple(values["networks"]), int(values["requests"]), int(values["megabytes"]))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"a network's queue needs networks, requests and megabytes, but is {text}") from error
        if min(limit.requests, limit.megabytes) < 1:
            raise ValueError(f"a network's queue holds at least 1 request of 1 MiB, but is {text}")
        return limit

    def for_decoders(self, count: int) -> BacklogLimit:
        """The limit with this many decoders: half of it, a full run, may wait while each decoder has one request."""
        return replace(self, requests=max(self.requests, self.requests // 2 + count))


class NetworkBacklog:
    """What waits for all networks. Every method is thread-safe.

    Args:
        limits: by the name of the decode step's output.
        read_pending: returns how many requests wait in Triton, by the name of the network.
        on_unreadable: called when that raises OSError, and not again before it has succeeded. Nothing is limited or
            refused meanwhile.
        clock: like time.monotonic; deadlines are times of this clock.
    """

    def __init__(
        self,
        limits: Mapping[str, BacklogLimit],
        read_pending: Callable[[], Mapping[str, int]] = dict,
        on_unreadable: Callable[[OSError], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = {output: _NetworkQueue(limit) for output, limit in limits.items()}
        self._read_pending, self._on_unreadable, self._clock = read_pending, on_unreadable, clock
        self._lock, self._polling = threading.Lock(), threading.Lock()
        self._polled = self._moved = 0.0
        self._is_unreadable = False

    def has_room(self, sizes: Sizes) -> bool:
        """Whether clips of these sizes may be decoded now, by the last poll."""
        with self._lock:
            return all(queue.has_room(size) for queue, size in self._queues_of(sizes))

    @property
    def is_busy(self) -> bool:
        """Whether requests wait for a network, by the last poll."""
        return any(queue.sent for queue in self._queues.values())

    def deadline_error(
        self, sizes: Sizes, deadline: float, *, ahead: Mapping[str, Sequence[int]] = NONE_AHEAD
    ) -> Busy | None:
        """The error for clips that the networks cannot answer by `deadline`; None where they can, or nobody knows.

        ahead: sizes of requests that go first, by output, beside those that are being decoded or were sent.
        """
        if deadline == math.inf:
            return None
        now = self._clock()
        with self._lock:
            seconds = [
                queue.seconds_until_done(size, ahead.get(output, ()), now)
                for output, size in sizes.items()
                if (queue := self._queues.get(output))
            ]
        expected, left = max(seconds, default=0.0), max(deadline - now, 0.0)
        if expected <= left:
            return None
        return Busy(
            f"the network would answer this request in about {expected:.1f} s, but the request's timeout leaves"
            f" {left:.1f} s; try again later, or allow more time"
        )

    def start_decoding(self, sizes: Sizes) -> None:
        """Clips of these sizes are being decoded."""
        with self._lock:
            for queue, size in self._queues_of(sizes):
                queue.decoding.append(size)

    def end_decoding(self, sizes: Sizes) -> None:
        """They are no longer being decoded: they were sent, or decoding failed."""
        with self._lock:
            for queue, size in self._queues_of(sizes):
                queue.decoding.remove(size)

    def record_sent(self, sizes: Sizes) -> None:
        """They were sent to Triton, as one request."""
        with self._lock:
            for queue, size in self._queues_of(sizes):
                queue.sent.append((self._clock(), size))

    def _queues_of(self, sizes: Sizes) -> list[tuple[_NetworkQueue, int]]:
        return [(self._queues[output], size) for output, size in sizes.items() if output in self._queues]

    def poll(self) -> None:
        """Ask Triton what waits. Sleeps first when the last poll was a moment ago."""
        asked = self._clock()
        with self._polling:
            if self._polled <= asked:  # Else another thread has polled since.
                self._poll()

    def _poll(self) -> None:
        pause = min(max((self._polled - self._moved) * POLL_SHARE, MIN_POLL_SECONDS), MAX_POLL_SECONDS)
        time.sleep(max(self._polled + pause - self._clock(), 0.0))
        before, self._polled = self._polled, self._clock()
        try:
            pending = self._read_pending()
        except OSError as error:
            if not self._is_unreadable:
                self._on_unreadable(error)
            self._is_unreadable = True
        else:
            self._is_unreadable = False
        with self._lock:
            for queue in self._queues.values():
                if self._is_unreadable:
                    queue.reset()
                elif queue.update(pending, self._polled, before):
                    self._moved = self._polled


class _NetworkQueue:
    """What is on its way to the networks that take the clips of one output. Not thread-safe."""

    def __init__(self, limit: BacklogLimit) -> None:
        self._limit = limit
        self._others = 0  # requests that did not come from the decode step
        self._throughput = ThroughputEstimate()
        self.decoding: list[int] = []  # bytes
        self.sent: deque[tuple[float, int]] = deque()  # time and bytes of what may still wait, in order

    def has_room(self, size: int) -> bool:
        """Whether clips of this many bytes fit."""
        ahead = len(self.decoding) + len(self.sent) + self._others
        megabytes = (sum(self.decoding) + sum(sent for _, sent in self.sent) + size) / 2**20
        return not ahead or (ahead < self._limit.requests and megabytes <= self._limit.megabytes)

    def seconds_until_done(self, size: int, ahead: Sequence[int], now: float) -> float:
        """The estimated time until clips of this many bytes are run, see ThroughputEstimate."""
        # Only the number of the others is known, so each counts as this request's size.
        before = [*(sent for _, sent in self.sent), *self.decoding, *[size] * self._others, *ahead]
        return self._throughput.seconds_until_done(size, before, now)

    def update(self, pending: Mapping[str, int], moment: float, before: float) -> bool:
        """Take the result of a poll at `moment`: how many requests wait. Returns whether the queue has changed.

        A network takes requests in order, so the first ones are gone. Others may not have come from the decode step.
        before: the time of the poll before.
        """
        count = sum(pending.get(name, 0) for name in self._limit.networks)
        known = sum(when < moment for when, _ in self.sent)
        others = max(count - known, 0)
        gone = [self.sent.popleft()[1] for _ in range(known - count)]
        if gone:
            self._throughput.add_run(gone, moment, polled_before=before, has_followers=count > 0)
        has_changed = bool(gone) or others != self._others
        self._others = others
        return has_changed

    def reset(self) -> None:
        """Forget the state of these networks, because it cannot be read."""
        self.sent.clear()
        self._others, self._throughput = 0, ThroughputEstimate()


class ThroughputEstimate:
    """How long a network takes for the requests that wait, estimated from how fast its queue has moved.

    One network, or several that share the work. Not thread-safe.
    """

    def __init__(self) -> None:
        self._seconds = self._bytes = 0.0  # spent on so many bytes; earlier runs have less weight
        self._longest = self._seen = 0.0  # of the run seen last: how long, and when
        self._run: Sequence[int] = ()  # bytes of the requests that left the queue last, together
        self._began = 0.0
        self._busy_since, self._busy_bytes = 0.0, 0  # a time in which the network certainly works on so many bytes
        self._has_followers = False

    def add_run(self, run: Sequence[int], moment: float, *, polled_before: float, has_followers: bool) -> None:
        """Requests of these sizes left the queue between `polled_before` and `moment`, so the network runs them.

        has_followers: whether others waited as these left. Then the network has no pause until the next ones leave.
        """
        worked = moment - self._busy_since
        if self._has_followers and moment - polled_before > worked * COARSE_SHARE:
            self._busy_bytes += sum(run)
        else:
            if self._has_followers:
                self._seconds = self._seconds * KEPT_SHARE + worked
                self._bytes = self._bytes * KEPT_SHARE + self._busy_bytes
                self._longest, self._seen = worked, moment
            self._busy_since, self._busy_bytes = moment, sum(run)
        self._run, self._began, self._has_followers = tuple(run), moment, has_followers

    def seconds_until_done(self, size: int, ahead: Sequence[int], now: float) -> float:
        """Until a request of `size` bytes behind `ahead` is run. 0 where the network is idle, or its speed is unknown.

        Requests behind this one may fill up its run, to as many requests as the last run had.
        """
        if not self._bytes:
            return 0.0
        doublings = (now - self._seen) / max(DOUBLING_SECONDS, DOUBLING_RUNS * self._longest)
        seconds_per_byte = self._seconds / self._bytes * math.pow(0.5, doublings)
        running = max(sum(self._run) * seconds_per_byte - (now - self._began), 0.0)
        if not ahead and not running:
            return 0.0
        together = max(len(self._run), 1)
        behind = together - 1 - len(ahead) % together
        return (running + (sum(ahead) + size * (1 + behind)) * seconds_per_byte) * MARGIN
