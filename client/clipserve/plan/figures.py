"""The measured figures of figures.json, and values between and beyond them."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_figures() -> dict[str, Any]:
    """figures.json: each group has its figures, the machine they were measured on, and their source."""
    found: dict[str, Any] = json.loads(files("clipserve.plan").joinpath("figures.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Figure:
    """A number that follows from measurements.

    Attributes:
        value: in the unit of `text`.
        text: the arithmetic, or what was measured.
        source: file and machine.
        extrapolated: how it goes beyond what was measured; "" where it does not.
    """

    value: float
    text: str
    source: str
    extrapolated: str = ""


def interpolate(points: Sequence[tuple[float, float]], x: float, *, beyond: str = "line") -> tuple[float, bool]:
    """The value at x on the straight lines through the points, and whether x is beyond them.

    beyond: "line" goes on in the direction of the two outermost points, and never below half of the last value; "flat"
    keeps the outermost value.
    """
    points = sorted(points)
    first, last = points[0], points[-1]
    if x < first[0] or x > last[0]:
        edge, inner = (
            (first, points[min(1, len(points) - 1)]) if x < first[0] else (last, points[max(-2, -len(points))])
        )
        if beyond == "flat" or edge is inner:
            return edge[1], True
        slope = (edge[1] - inner[1]) / (edge[0] - inner[0])
        return max(edge[1] + slope * (x - edge[0]), edge[1] / 2), True
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0), False
    return last[1], False
