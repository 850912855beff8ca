"""Flat shapes as signed distances: negative inside, positive outside, in units of the shape's radius.

Every shape fits the unit disc around its origin, x to the right and y down. The distances are exact at the edge
and have unit slope there, which is all that anti-aliasing needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]
Distance = Callable[[Plane, Plane], Plane]

ROUND = 0.0
"""The symmetry of a shape whose rotation cannot be seen."""


@dataclass(frozen=True)
class Shape:
    """`symmetry` is the smallest turn, in degrees, after which the shape looks the same."""

    name: str
    symmetry: float
    distance: Distance

    @property
    def turns_visibly(self) -> bool:
        return self.symmetry != ROUND


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _disc(x: Plane, y: Plane, radius: float = 1.0) -> Plane:
    return np.sqrt(x * x + y * y) - radius


def _box_of(half_width: float, half_height: float) -> Distance:
    return lambda x, y: _box(x, y, half_width, half_height)


def _ellipse_of(ratio: float) -> Distance:
    def distance(x: Plane, y: Plane) -> Plane:
        # |f| / |grad f|: first-order distance, exact at the edge. The floor keeps the centre finite.
        scaled = y / ratio
        level = np.sqrt(x * x + scaled * scaled)
        slope = np.sqrt(x * x + (scaled / ratio) ** 2)
        return level * (level - 1.0) / np.maximum(slope, 1e-3)

    return distance


def _polygon_of(corners: int) -> Distance:
    """A regular polygon with a corner to the right."""
    step = 2 * np.pi / corners
    apothem = np.cos(step / 2)

    def distance(x: Plane, y: Plane) -> Plane:
        angle = np.mod(np.arctan2(y, x), step) - step / 2
        return np.sqrt(x * x + y * y) * np.cos(angle) - apothem

    return distance


def _star_of(tips: int, waist: float) -> Distance:
    """`waist` is the radius of the inner corners."""
    step = 2 * np.pi / tips
    inner_x, inner_y = waist * np.cos(step / 2), waist * np.sin(step / 2)
    normal_x, normal_y = inner_y, 1.0 - inner_x
    length = float(np.hypot(normal_x, normal_y))

    def distance(x: Plane, y: Plane) -> Plane:
        radius = np.sqrt(x * x + y * y)
        angle = np.abs(np.mod(np.arctan2(y, x) + step / 2, step) - step / 2)
        along, across = radius * np.cos(angle), radius * np.sin(angle)
        return ((along - 1.0) * normal_x + across * normal_y) / length

    return distance


def _cross(x: Plane, y: Plane) -> Plane:
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(_disc(x, y, 0.8)) - 0.2


def _arrow(x: Plane, y: Plane) -> Plane:
    shaft = _box(x + 0.4, y, 0.5, 0.17)
    head = np.maximum(-x, (x - 0.95) * 0.53 + np.abs(y) * 0.85)
    return np.minimum(shaft, head)


def _l_shape(x: Plane, y: Plane) -> Plane:
    return np.minimum(_box(x + 0.35, y, 0.22, 0.8), _box(x, y - 0.58, 0.57, 0.22))


def _t_shape(x: Plane, y: Plane) -> Plane:
    return np.minimum(_box(x, y + 0.5, 0.75, 0.2), _box(x, y - 0.1, 0.2, 0.8))


def _half_disc(x: Plane, y: Plane) -> Plane:
    return np.maximum(_disc(x, y), x)


def _wedged_disc(x: Plane, y: Plane) -> Plane:
    """A disc with a quarter missing on the right."""
    return np.maximum(_disc(x, y), (x - np.abs(y)) * 0.7071)


def _hand(x: Plane, y: Plane) -> Plane:
    """A bar from the origin outwards, as a clock's hand."""
    return _box(x - 0.48, y, 0.5, 0.14)


SHAPES: tuple[Shape, ...] = (
    Shape("square", 90.0, _box_of(0.7, 0.7)),
    Shape("rectangle", 180.0, _box_of(0.87, 0.45)),
    Shape("bar", 180.0, _box_of(0.97, 0.2)),
    Shape("circle", ROUND, _disc),
    Shape("ring", ROUND, _ring),
    Shape("ellipse", 180.0, _ellipse_of(0.5)),
    Shape("triangle", 120.0, _polygon_of(3)),
    Shape("star", 72.0, _star_of(5, 0.42)),
    Shape("cross", 90.0, _cross),
    Shape("arrow", 360.0, _arrow),
    Shape("L", 360.0, _l_shape),
    Shape("T", 360.0, _t_shape),
    Shape("half disc", 360.0, _half_disc),
    Shape("wedged disc", 360.0, _wedged_disc),
    Shape("hand", 360.0, _hand),
)
