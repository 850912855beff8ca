"""Load levels, the latency limit, and the search for the highest request rate within that limit."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Through = Literal["ensemble", "decode", "net"]
THROUGH: tuple[Through, ...] = get_args(Through)


class LoadTestError(Exception):
    """The load test cannot run. The message says what came, what is allowed and what to do."""


@dataclass(frozen=True)
class LoadLevel:
    """The load that perf_analyzer keeps up during one run.

    Attributes:
        mode: "closed": a fixed number of requests in flight. "open": a fixed number of requests a second, sent at
            random moments (a Poisson process) whether earlier ones are answered or not.
        value: requests in flight, or requests a second.
    """

    mode: Literal["closed", "open"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} in flight" if self.mode == "closed" else f"{self.value:g} a second"

    @property
    def slug(self) -> str:
        """The level in a file name."""
        return f"{self.mode}-{self.value:g}"


@dataclass(frozen=True)
class LatencyLimit:
    """The latency that is good enough: `percentile` percent of the requests within `milliseconds`."""

    percentile: int
    milliseconds: float

    def __str__(self) -> str:
        return f"p{self.percentile} within {self.milliseconds:g} ms"


def parse_numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    """Parse positive numbers separated by commas. Raises LoadTestError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    are_allowed = all(math.isfinite(number) and number > 0 and not (whole and number % 1) for number in numbers)
    if not numbers or not are_allowed:
        kind = "whole numbers" if whole else "numbers"
        raise LoadTestError(f"{option} takes {kind} above 0, separated by commas, such as 1,2,4; got {text!r}")
    return sorted(set(numbers))


def require_finite(number: float, option: str) -> None:
    """Raise LoadTestError for nan and inf, which no bound of an option refuses."""
    if not math.isfinite(number):
        raise LoadTestError(f"{option} takes a finite number; got {number}")


def parse_through(text: str) -> list[Through]:
    """Parse names of THROUGH separated by commas; returns them in the order of THROUGH. Raises LoadTestError."""
    named = text.split(",")
    if set(named) - set(THROUGH):
        raise LoadTestError(f"--through takes {', '.join(THROUGH)}, separated by commas; got {text!r}")
    return [name for name in THROUGH if name in named]


@dataclass(frozen=True)
class SearchResult:
    """The result of a rate search, in requests a second.

    Attributes:
        met: the highest rate that met the limit; None: even the lowest rate tried missed it.
        missed: the lowest rate above `met` that missed the limit; None: even the highest rate tried met it.
    """

    limit: LatencyLimit
    met: float | None
    missed: float | None

    def __str__(self) -> str:
        if self.met is None:
            return f"even the lowest rate tried, {self.missed:.3g} a second, misses {self.limit}"
        if self.missed is None:
            return f"even the highest rate tried, {self.met:.3g} a second, meets {self.limit}"
        return f"{self.met:.3g} a second is the highest rate that meets {self.limit}; {self.missed:.3g} does not"


def search_rate(
    meets: Callable[[float], bool], limit: LatencyLimit, *, low: float, high: float, steps: int
) -> SearchResult:
    """Find the highest rate that meets the limit: try both ends, then bisect.

    perf_analyzer has --binary-search. It begins at the highest rate, and loses all results when the server refuses a
    request there, which a server with bounded queues does.

    Args:
        meets: measures a rate and says whether it meets the limit.
        low, high: the range, in requests a second.
        steps: bisections; each halves the remaining range.
    """
    if not meets(low):
        return SearchResult(limit, None, low)
    if meets(high):
        return SearchResult(limit, high, None)
    for _ in range(steps):
        middle = round((low + high) / 2, 2)
        if middle in (low, high):
            break
        low, high = (middle, high) if meets(middle) else (low, middle)
    return SearchResult(limit, low, high)
