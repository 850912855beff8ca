"""What waits between the decode step and the networks, and whether there is room for more.

Triton could bound a network's queue itself (`default_queue_policy`), but its scheduler then no longer prefetches, and
a request that comes while the network is at work may wait half a second longer than it must (benchmarks/stalls.py). So
the networks' queues have no bound of their own, and the decode step keeps them short: it decodes a video only while its
network has room. Everything else waits before it is decoded, when it is small and its deadline still counts.

What waits for a network is run, whether its deadline has passed or not. So the decode step also sees how fast clips
leave each queue, and refuses a request that would be answered too late.
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
from decode_pool.pace import Pace

# Bytes of clips, by the name of the decode step's output.
Sizes = Mapping[str, int]
NOTHING: Mapping[str, Sequence[int]] = {}

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
        """With so many decoders, half (a full run) must be able to wait while each has one in hand."""
        return replace(self, requests=max(self.requests, self.requests // 2 + count))


class Networks:
    """The queues of all networks; every method may be called from any thread.

    Args:
        bounds: by the name of the decode step's output.
        read_waiting: gives the number of requests that wait, by the name of the network.
        on_blind: called when that fails with OSError, until it succeeds again once; nothing is bounded or refused
            meanwhile.
        clock: as time.monotonic, by which deadlines are meant, too.
    """

    def __init__(
        self,
        bounds: Mapping[str, Bound],
        read_waiting: Callable[[], Mapping[str, int]] = dict,
        on_blind: Callable[[OSError], None] = lambda error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = {output: _Queue(bound) for output, bound in bounds.items()}
        self._read_waiting, self._on_blind, self._clock = read_waiting, on_blind, clock
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._looked = self._moved = 0.0
        self._is_blind = False

    def has_room(self, sizes: Sizes) -> bool:
        """Whether clips of these sizes may be decoded now, by what is known."""
        with self._lock:
            return all(queue.has_room(size) for queue, size in self._through(sizes))

    @property
    def are_busy(self) -> bool:
        """Whether requests wait for a network, by what is known."""
        return any(queue.sent for queue in self._queues.values())

    def refusal(self, sizes: Sizes, deadline: float, *, behind: Mapping[str, Sequence[int]] = NOTHING) -> Busy | None:
        """Why clips of these sizes cannot be answered by `deadline`; None where they can, or nobody knows.

        behind: bytes of the clips of requests that go first, by output, beside those that are being decoded or sent.
        """
        if deadline == math.inf:
            return None
        now = self._clock()
        with self._lock:
            seconds = [
                queue.seconds(size, behind.get(output, ()), now)
                for output, size in sizes.items()
                if (queue := self._queues.get(output))
            ]
        expected, left = max(seconds, default=0.0), max(deadline - now, 0.0)
        if expected <= left:
            return None
        return Busy(
            f"the network would be done with this request in about {expected:.1f} s, and the request's timeout leaves"
            f" {left:.1f} s; try again later, or allow more time"
        )

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
                queue.sent.append((self._clock(), size))

    def _through(self, sizes: Sizes) -> list[tuple[_Queue, int]]:
        return [(self._queues[output], size) for output, size in sizes.items() if output in self._queues]

    def look(self) -> None:
        """Ask what waits; sleeps first where it was asked a moment ago."""
        asked = self._clock()
        with self._looking:
            if self._looked <= asked:  # Else another thread has looked since.
                self._look()

    def _look(self) -> None:
        pause = min(max((self._looked - self._moved) * PAUSE_SHARE, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS)
        time.sleep(max(self._looked + pause - self._clock(), 0.0))
        before, self._looked = self._looked, self._clock()
        try:
            waiting = self._read_waiting()
        except OSError as error:
            if not self._is_blind:
                self._on_blind(error)
            self._is_blind = True
        else:
            self._is_blind = False
        with self._lock:
            for queue in self._queues.values():
                if self._is_blind:
                    queue.forget()
                elif queue.note(waiting, self._looked, before):
                    self._moved = self._looked


class _Queue:
    """Of the clips of one output: what is on its way to the networks that take them. Not for two threads at a time."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._others = 0
        self._pace = Pace()
        self.decoding: list[int] = []  # bytes
        self.sent: deque[tuple[float, int]] = deque()  # when, bytes; what may wait still, in order

    def has_room(self, size: int) -> bool:
        """For clips of so many bytes."""
        ahead = len(self.decoding) + len(self.sent) + self._others
        megabytes = (sum(self.decoding) + sum(sent for _, sent in self.sent) + size) / 2**20
        return not ahead or (ahead < self._bound.requests and megabytes <= self._bound.megabytes)

    def seconds(self, size: int, behind: Sequence[int], now: float) -> float:
        """Until clips of so many bytes are run, by what is known, see Pace.seconds."""
        # Of what came past the decode step only the number is known.
        ahead = [*(sent for _, sent in self.sent), *self.decoding, *[size] * self._others, *behind]
        return self._pace.seconds(size, ahead, now)

    def note(self, waiting: Mapping[str, int], moment: float, before: float) -> bool:
        """Of what had been sent at `moment`, so many requests wait; says whether that is news.

        A network takes them in order, so the first are gone. Others may have come past the decode step.
        before: the moment of the look before.
        """
        count = sum(waiting.get(name, 0) for name in self._bound.networks)
        known = sum(when < moment for when, _ in self.sent)
        others = max(count - known, 0)
        gone = [self.sent.popleft()[1] for _ in range(known - count)]
        if gone:
            self._pace.note(gone, moment, looked_before=before, has_followers=count > 0)
        is_news = bool(gone) or others != self._others
        self._others = others
        return is_news

    def forget(self) -> None:
        """Nothing is known of these networks."""
        self.sent.clear()
        self._others, self._pace = 0, Pace()
