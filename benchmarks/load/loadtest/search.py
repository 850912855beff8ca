"""The highest rate that meets the limit, by halving.

perf_analyzer has a --binary-search of its own. It begins at the highest rate and loses all it has found when the server
refuses a request there, which is what a bounded queue does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.loads import Limit


@dataclass(frozen=True)
class Found:
    """What a search came to, in requests a second.

    Attributes:
        met: the highest rate that met the limit; None: even the lowest that was tried did not.
        missed: the lowest rate above it that did not; None: even the highest that was tried did.
    """

    limit: Limit
    met: float | None
    missed: float | None

    def __str__(self) -> str:
        if self.met is None:
            return f"even the lowest rate tried, {self.missed:.3g} a second, misses {self.limit}"
        if self.missed is None:
            return f"even the highest rate tried, {self.met:.3g} a second, meets {self.limit}"
        return f"{self.met:.3g} a second is the highest rate that meets {self.limit}; {self.missed:.3g} does not"


def search_rate(meets: Callable[[float], bool], limit: Limit, *, low: float, high: float, halvings: int) -> Found:
    """Try both ends, then halve what lies between.

    Args:
        meets: measures a rate.
        low, high: ends of the range, in requests a second.
        halvings: each makes the answer twice as exact.
    """
    if not meets(low):
        return Found(limit, None, low)
    if meets(high):
        return Found(limit, high, None)
    for _ in range(halvings):
        middle = round((low + high) / 2, 2)
        if middle in (low, high):
            break
        low, high = (middle, high) if meets(middle) else (low, middle)
    return Found(limit, low, high)
