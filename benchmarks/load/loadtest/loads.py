"""How hard to knock, and at which door."""

from dataclasses import dataclass
from typing import Literal, get_args

from loadtest.errors import LoadTestError

Through = Literal["ensemble", "decode", "net"]
THROUGH: tuple[Through, ...] = get_args(Through)


@dataclass(frozen=True)
class Load:
    """What perf_analyzer keeps up.

    Attributes:
        mode: "closed": so many requests at a time, the next one when one is answered. "open": so many a second, at
            random moments (a Poisson process), whether answered or not.
        value: requests at a time, or a second.
    """

    mode: Literal["closed", "open"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} at a time" if self.mode == "closed" else f"{self.value:g} a second"

    @property
    def slug(self) -> str:
        """For names of files."""
        return f"{self.mode}-{self.value:g}"


@dataclass(frozen=True)
class Limit:
    """What is good enough: so many percent of the requests are answered within so many milliseconds."""

    percentile: int
    milliseconds: float

    def __str__(self) -> str:
        return f"p{self.percentile} within {self.milliseconds:g} ms"


def read_numbers(text: str, option: str, *, whole: bool = False) -> list[float]:
    """Positive numbers with commas between them. Raises LoadTestError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0 or (whole and any(number % 1 for number in numbers)):
        kind = "whole numbers" if whole else "numbers"
        raise LoadTestError(f"{option} takes {kind} above 0 with commas between them, such as 1,2,4; got {text!r}")
    return sorted(set(numbers))


def read_through(text: str) -> list[Through]:
    """Names of THROUGH with commas between them, in the order of THROUGH. Raises LoadTestError."""
    named = text.split(",")
    if set(named) - set(THROUGH):
        raise LoadTestError(f"--through takes {', '.join(THROUGH)}, with commas between them; got {text!r}")
    return [name for name in THROUGH if name in named]
