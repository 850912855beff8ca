"""How long it takes until a network has run what comes to it now, from how fast its queue has moved so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

# How much an earlier run counts, next to the one after it.
KEPT_SHARE = 0.7
# Of the time between two runs: a look that comes so long after the one before does not tell when a run began.
COARSE_SHARE = 0.5
# Where no runs are seen, a network is taken to be twice as fast after so long, or after so many of its runs: what was
# slow may not be slow for ever, and the requests that are let in then show it.
HALVING_SECONDS, HALVING_RUNS = 5.0, 2.0
# Runs are not all alike, and an answer has its way to go.
MARGIN = 1.2


class Pace:
    """Of one network, or several that share the work. Not for two threads at a time."""

    def __init__(self) -> None:
        self._seconds = self._bytes = 0.0  # spent on so much; earlier runs count less
        self._longest = self._seen = 0.0  # of the run seen last: how long, and when
        self._run: Sequence[int] = ()  # bytes of the requests that left the queue last, together
        self._began = 0.0
        self._open_since, self._open_bytes = 0.0, 0  # a time in which the network is at work on so much, for certain
        self._has_followers = False

    def note(self, run: Sequence[int], moment: float, *, looked_before: float, has_followers: bool) -> None:
        """Requests of so many bytes have left the queue since `looked_before`, so they are being run.

        has_followers: others waited in the queue as these left. So the network has no pause until the next leave.
        """
        worked = moment - self._open_since
        if self._has_followers and moment - looked_before > worked * COARSE_SHARE:
            self._open_bytes += sum(run)
        else:
            if self._has_followers:
                self._seconds = self._seconds * KEPT_SHARE + worked
                self._bytes = self._bytes * KEPT_SHARE + self._open_bytes
                self._longest, self._seen = worked, moment
            self._open_since, self._open_bytes = moment, sum(run)
        self._run, self._began, self._has_followers = tuple(run), moment, has_followers

    def seconds(self, size: int, ahead: Sequence[int], now: float) -> float:
        """Until a request of so many bytes is run, behind these; 0 where the network is free, or its speed not known.

        The run that it comes into may fill up with requests behind it, to as many as the last run had.
        """
        if not self._bytes:
            return 0.0
        halvings = (now - self._seen) / max(HALVING_SECONDS, HALVING_RUNS * self._longest)
        pace = self._seconds / self._bytes * math.pow(0.5, halvings)
        running = max(sum(self._run) * pace - (now - self._began), 0.0)
        if not ahead and not running:
            return 0.0
        together = max(len(self._run), 1)
        behind = together - 1 - len(ahead) % together
        return (running + (sum(ahead) + size * (1 + behind)) * pace) * MARGIN
