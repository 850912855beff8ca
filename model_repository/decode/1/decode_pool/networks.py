"""What waits between the decode step and the networks, and whether there is room for more.

Triton could bound a network's queue itself (`default_queue_policy`), but its scheduler then no longer prefetches, and
a request that comes while the network is at work may wait half a second longer than it must (benchmarks/stalls.py). So
the networks' queues have no bound of their own, and the decode step keeps them short: it decodes a video only while its
network has room. Everything else waits before it is decoded, when it is small and its deadline still counts.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

# Bytes of clips, by the name of the decode step's output.
Sizes = Mapping[str, int]

# Between two looks at what waits. A tenth of the time that a queue takes to move, so that a slow network is not asked
# a hundred times for one run; reading takes Triton 0.2 ms.
LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.005, 0.25
PAUSE_SHARE = 0.1


@dataclass(frozen=True)
class Bound:
    """What may wait for the networks that take one kind of clip.

    networks: Triton's names of them. requests, megabytes: how many, and of clips how much; one may always wait.
    """

    networks: tuple[str, ...]
    requests: int
    megabytes: int

    @classmethod
    def from_config(cls, text: str) -> Bound:
        """Read the parameter QUEUE_<output>. Raises ValueError."""
        try:
            values = json.loads(text)
            bound = cls(tuple(values["networks"]), int(values["requests"]), int(values["megabytes"]))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"a network's queue needs networks, requests and megabytes, but is {text}") from error
        if min(bound.requests, bound.megabytes) < 1:
            raise ValueError(f"a network's queue holds at least 1 request of 1 MiB, but is {text}")
        return bound

    def for_decoders(self, count: int) -> Bound:
        """With so many decoders, what they all have in hand must fit: else some are idle while no network has work."""
        return replace(self, requests=max(self.requests, count))


class Networks:
    """The queues of all networks; every method may be called from any thread.

    Args:
        bounds: by the name of the decode step's output.
        read_waiting: gives the number of requests that wait, by the name of the network.
        on_blind: called when that fails with OSError, until it succeeds again once; nothing is bounded meanwhile.
    """

    def __init__(
        self,
        bounds: Mapping[str, Bound],
        read_waiting: Callable[[], Mapping[str, int]] = dict,
        on_blind: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._queues = {output: _Queue(bound) for output, bound in bounds.items()}
        self._read_waiting, self._on_blind = read_waiting, on_blind
        self._lock = threading.Lock()
        self._looked = self._moved = 0.0
        self._is_blind = False

    def has_room(self, sizes: Sizes) -> bool:
        """Whether clips of these sizes may be decoded now, by what is known."""
        with self._lock:
            return all(queue.has_room(size) for queue, size in self._through(sizes))

    def begin(self, sizes: Sizes) -> None:
        """They are being decoded."""
        with self._lock:
            for queue, size in self._through(sizes):
                queue.decoding.append(size)

    def end(self, sizes: Sizes) -> None:
        """They are no longer being decoded: they were sent, or it came to nothing."""
        with self._lock:
            for queue, size in self._through(sizes):
                queue.decoding.remove(size)

    def send(self, sizes: Sizes) -> None:
        """They are handed to Triton, as one request."""
        with self._lock:
            for queue, size in self._through(sizes):
                queue.sent.append((time.monotonic(), size))

    def _through(self, sizes: Sizes) -> list[tuple[_Queue, int]]:
        return [(self._queues[output], size) for output, size in sizes.items() if output in self._queues]

    def look(self) -> None:
        """Ask what waits; sleeps first where it was asked a moment ago."""
        pause = min(max((self._looked - self._moved) * PAUSE_SHARE, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS)
        time.sleep(max(self._looked + pause - time.monotonic(), 0.0))
        self._looked = time.monotonic()
        try:
            waiting = self._read_waiting()
        except OSError as error:
            waiting = {}
            if not self._is_blind:
                self._on_blind(error)
            self._is_blind = True
        else:
            self._is_blind = False
        with self._lock:
            for queue in self._queues.values():
                if queue.note(waiting, self._looked):
                    self._moved = self._looked


class _Queue:
    """Of the clips of one output: what is on its way to the networks that take them. Not for two threads at a time."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._others = 0
        self.decoding: list[int] = []  # bytes
        self.sent: deque[tuple[float, int]] = deque()  # when, bytes; what may wait still, in order

    def has_room(self, size: int) -> bool:
        """For clips of so many bytes."""
        ahead = len(self.decoding) + len(self.sent) + self._others
        megabytes = (sum(self.decoding) + sum(sent for _, sent in self.sent) + size) / 2**20
        return not ahead or (ahead < self._bound.requests and megabytes <= self._bound.megabytes)

    def note(self, waiting: Mapping[str, int], moment: float) -> bool:
        """Of what had been sent at `moment`, so many requests wait; says whether that is news.

        A network takes them in order, so the first are gone. Others may have come past the decode step.
        """
        count = sum(waiting.get(name, 0) for name in self._bound.networks)
        before = sum(when < moment for when, _ in self.sent)
        others = max(count - before, 0)
        gone = max(before - count, 0)
        for _ in range(gone):
            self.sent.popleft()
        is_news = bool(gone) or others != self._others
        self._others = others
        return is_news
