"""Backdrops of a scene: plain colours, gradients, checks, stripes and textures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]
Image = npt.NDArray[np.float32]
Plane = npt.NDArray[np.floating[Any]]

BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)
_WAVES = 8
"""Number of plane waves in a texture."""
_LEAST_CONTRAST = 0.25
"""Of the luma, between a shape and its backdrop. A video's luma keeps it; its half-size chroma may not."""
_LUMA = np.array([0.299, 0.587, 0.114])


def luma(colour: Colour) -> float:
    return float(np.dot(colour, _LUMA))


def draw_colour(rng: np.random.Generator) -> Colour:
    """A random colour; primaries, black, white and greys are more frequent than in a uniform choice."""
    kind = rng.random()
    if kind < 0.35:
        level = float(rng.choice([0.0, 1.0])) if rng.random() < 0.6 else rng.random()
        return (level, level, level)
    values = rng.random(3) if kind < 0.7 else rng.integers(0, 2, 3).astype(float)
    return (float(values[0]), float(values[1]), float(values[2]))


def draw_contrasting(rng: np.random.Generator, behind: Colour) -> Colour:
    """A colour with enough contrast to `behind`."""
    for _ in range(20):
        colour = draw_colour(rng)
        if abs(luma(colour) - luma(behind)) >= _LEAST_CONTRAST:
            return colour
    return WHITE if luma(behind) < 0.5 else BLACK


@dataclass(frozen=True)
class Backdrop:
    """Two colours mixed by a pattern of position; `frequencies` are per short side, `phases` in turns."""

    kind: str
    colour: Colour
    other: Colour
    frequencies: tuple[tuple[float, float], ...]
    phases: tuple[float, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Backdrop":
        kind = str(rng.choice(["plain", "gradient", "checks", "stripes", "texture"], p=_KINDS))
        colour = draw_colour(rng)
        # The second colour is near the first, so that one shape colour contrasts with both.
        reach = rng.uniform(0.05, 0.35)
        shifted = np.clip(np.asarray(colour) + reach * rng.uniform(-1, 1, 3), 0, 1)
        waves = _WAVES if kind == "texture" else 1
        angle = rng.uniform(0, 2 * np.pi, waves)
        speed = rng.uniform(0.5, 9.0, waves) if kind != "gradient" else rng.uniform(0.3, 0.6, waves)
        pairs = zip(speed * np.cos(angle), speed * np.sin(angle), strict=True)
        return cls(
            kind=kind,
            colour=colour,
            other=(float(shifted[0]), float(shifted[1]), float(shifted[2])),
            frequencies=tuple((float(u), float(v)) for u, v in pairs),
            phases=tuple(float(phase) for phase in rng.random(waves)),
        )

    def paint(self, x: Plane, y: Plane) -> Image:
        """RGB in [0, 1], float32 [H, W, 3], at the positions `x` [1, W] and `y` [H, 1] in short sides."""
        share = self._share(x, y)[..., None]
        first, second = np.asarray(self.colour), np.asarray(self.other)
        return (first + share * (second - first)).astype(np.float32)

    def _share(self, x: Plane, y: Plane) -> Plane:
        """The share of the second colour at each position, in [0, 1]."""
        if self.kind == "plain":
            return np.zeros(np.broadcast_shapes(x.shape, y.shape))
        (u, v), phase = self.frequencies[0], self.phases[0]
        if self.kind == "gradient":
            return np.clip(0.5 + u * x + v * y, 0, 1)
        if self.kind == "checks":
            size = np.hypot(u, v)
            return (np.floor(size * x + phase) + np.floor(size * y + phase)) % 2
        if self.kind == "stripes":
            return 0.5 + 0.5 * np.sin(2 * np.pi * (u * x + v * y + phase))
        waves = [
            np.sin(2 * np.pi * (u * x + v * y + phase))
            for (u, v), phase in zip(self.frequencies, self.phases, strict=True)
        ]
        return np.clip(0.5 + 0.5 * sum(waves, np.zeros(1)) / np.sqrt(_WAVES), 0, 1)


_KINDS = (0.5, 0.15, 0.08, 0.09, 0.18)
