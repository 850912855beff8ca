"""How one shape changes over a video: where it is, how large, how turned and how visible at each moment.

Positions are in short sides of the picture from its middle, x to the right and y down; the square that the model
sees is [-0.5, 0.5] in both. Angles grow clockwise as the viewer sees it. Times run from 0, the first frame, to 1, the
last.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pose:
    """A shape at one moment; `angle` in radians, `opacity` in [0, 1]."""

    x: float
    y: float
    radius: float
    angle: float
    opacity: float


@dataclass(frozen=True, kw_only=True)
class Track:
    """A shape at rest at (x, y), unless one of the changes says otherwise.

    travel: how far it moves in all, as a vector. turn: how far it turns, in radians, clockwise.
    final_radius: its radius at the end.
    swing: the vector that it moves to and back in each of `periods`; `bounce` makes that a ball's parabola.
    blinks: how often it disappears; it shows for the share `duty` of each.
    ease: 0 is constant speed, 1 starts and ends at rest. begin, end: the part of the video in which it changes.
    """

    x: float
    y: float
    radius: float
    angle: float = 0.0
    travel: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    final_radius: float | None = None
    swing: tuple[float, float] = (0.0, 0.0)
    periods: float = 0.0
    bounce: bool = False
    blinks: float = 0.0
    duty: float = 1.0
    fade: float = 0.0
    phase: float = 0.0
    ease: float = 0.0
    begin: float = 0.0
    end: float = 1.0

    def progress(self, times: Values) -> Values:
        linear = np.clip((times - self.begin) / (self.end - self.begin), 0, 1)
        return linear + self.ease * (linear * linear * (3 - 2 * linear) - linear)

    def positions(self, times: Values) -> tuple[Values, Values]:
        share, swung = self.progress(times), self._swung(times)
        return (
            self.x + share * self.travel[0] + swung * self.swing[0],
            self.y + share * self.travel[1] + swung * self.swing[1],
        )

    def opacities(self, times: Values) -> Values:
        if not self.blinks:
            return np.ones_like(times)
        cycle = np.mod(self.blinks * times + self.phase, 1.0)
        if not self.fade:
            return (cycle < self.duty).astype(float)
        # Distance from the ends of the visible part of a cycle, in cycles: positive while visible.
        depth = np.where(cycle < self.duty, np.minimum(cycle, self.duty - cycle), 0.0)
        return np.clip(depth / self.fade, 0, 1)

    def poses(self, times: Values) -> list[Pose]:
        share = self.progress(times)
        x, y = self.positions(times)
        final = self.radius if self.final_radius is None else self.final_radius
        radius = self.radius + share * (final - self.radius)
        angle = self.angle + share * self.turn
        columns = (x, y, radius, angle, self.opacities(times))
        return [Pose(*(float(value) for value in row)) for row in zip(*columns, strict=True)]

    def _swung(self, times: Values) -> Values:
        """0 at one end of the swing, 1 at the other."""
        cycle = np.mod(self.periods * times + self.phase, 1.0)
        if self.bounce:
            return 4 * cycle * (1 - cycle)
        triangle = 1 - np.abs(2 * cycle - 1)
        return triangle + self.ease * (0.5 - 0.5 * np.cos(2 * np.pi * cycle) - triangle)
