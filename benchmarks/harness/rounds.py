"""Interleaved rounds: every contestant runs once a round, so that a busy machine slows all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Samples:
    """The measurements of one contestant, one a round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """NaN without samples."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Between the smallest and the largest, over the median."""
        return (max(self.values) - min(self.values)) / self.median if self.values else math.nan

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.values):.2f} to {max(self.values):.2f})" if self.values else ""


def interleave(contestants: Sequence[Key], rounds: int, *, warm_up: int = 1) -> Iterator[tuple[int, list[Key]]]:
    """Yield the number of each round and its order of contestants; every round begins with another one.

    Rounds that count are numbered from 1; warm-up rounds have numbers below 1.
    """
    for number in range(1 - warm_up, rounds + 1):
        first = number % len(contestants)
        yield number, [*contestants[first:], *contestants[:first]]


def take_turns(
    contestants: Mapping[Key, Callable[[], Result]],
    *,
    rounds: int,
    warm_up: int = 1,
    limit_seconds: float = math.inf,
) -> dict[Key, list[Result]]:
    """Call every contestant once a round; returns the results of the rounds that count.

    Args:
        contestants: each does one measurement and returns its result.
        limit_seconds: no further round begins after this time.
    """
    results: dict[Key, list[Result]] = {name: [] for name in contestants}
    started = time.perf_counter()
    for number, order in interleave(list(contestants), rounds, warm_up=warm_up):
        if number > 1 and time.perf_counter() - started > limit_seconds:
            break
        for name in order:
            result = contestants[name]()
            if number > 0:
                results[name].append(result)
    return results


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean of ratios."""
    return statistics.geometric_mean(ratios)
