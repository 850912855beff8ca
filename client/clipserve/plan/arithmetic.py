"""The lines of a plan's arithmetic."""

from dataclasses import dataclass

from clipserve.plan.figures import Figure


@dataclass(frozen=True)
class Step:
    """One line of the arithmetic.

    Attributes:
        what, value, unit: the result.
        how: the arithmetic.
        source: where its figures come from; "" for arithmetic alone.
        extrapolated: how it goes beyond what was measured; "" where it does not.
    """

    what: str
    value: float
    unit: str
    how: str
    source: str = ""
    extrapolated: str = ""


def step_of(what: str, figure: Figure, unit: str) -> Step:
    """A figure as it was measured."""
    return Step(what, figure.value, unit, figure.text, figure.source, figure.extrapolated)
