"""Scenes: a backdrop, still shapes, moving shapes and camera noise, rendered at any size and moment."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve_export.motion.backdrops import (
    BLACK,
    WHITE,
    Backdrop,
    Colour,
    draw_contrasting,
)
from clipserve_export.motion.choreography import LABELS, draw_tracks, turns
from clipserve_export.motion.shapes import SHAPES, Shape
from clipserve_export.motion.tracks import Pose, Track

__all__ = ["LABELS", "Actor", "Scene"]

Frames = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]
Plane = npt.NDArray[np.floating[Any]]

_TURNING = tuple(shape for shape in SHAPES if shape.turns_visibly)
_PLAIN_SHARE = 0.2
"""The share of simple scenes: one shape on a plain backdrop, often white on black, without noise."""


@dataclass(frozen=True)
class Actor:
    """A shape of one colour on its track."""

    shape: Shape
    colour: Colour
    track: Track


@dataclass(frozen=True, kw_only=True)
class Scene:
    """`softness`: width of the shapes' edges in short sides. noise, flicker: standard deviations, white being 1."""

    label: str
    backdrop: Backdrop
    props: tuple[Actor, ...]
    actors: tuple[Actor, ...]
    softness: float = 0.0
    noise: float = 0.0
    flicker: float = 0.0
    noise_seed: int = 0

    @classmethod
    def draw(cls, label: str, rng: np.random.Generator) -> "Scene":
        """A scene of this label, the same for the same state of `rng`."""
        simple = rng.random() < _PLAIN_SHARE
        backdrop = _plain_backdrop(rng) if simple else Backdrop.draw(rng)
        kinds = _TURNING if turns(label) else SHAPES
        shapes = [kinds[int(rng.integers(len(kinds)))] for _ in range(3)]
        if rng.random() < 0.4:
            shapes = shapes[:1] * 3
        colours = [draw_contrasting(rng, backdrop.colour) for _ in shapes]
        if rng.random() < 0.5:
            colours = colours[:1] * 3
        tracks = draw_tracks(label, rng, [shape.symmetry for shape in shapes])
        return cls(
            label=label,
            backdrop=backdrop,
            props=() if simple else _draw_props(rng, backdrop),
            actors=tuple(Actor(*parts) for parts in zip(shapes, colours, tracks, strict=False)),
            softness=_sometimes(rng, 0.3, 0.03),
            noise=0.0 if simple else _sometimes(rng, 0.5, 0.05),
            flicker=0.0 if simple else _sometimes(rng, 0.25, 0.03),
            noise_seed=int(rng.integers(2**31)),
        )

    def render(self, times: npt.NDArray[np.floating[Any]], width: int, height: int) -> Frames:
        """RGB uint8 [T, H, W, 3] at the moments `times` in [0, 1]; the short side is the scene's unit of length."""
        side = min(width, height)
        x = ((np.arange(width) + 0.5 - width / 2) / side).astype(np.float32)[None, :]
        y = ((np.arange(height) + 0.5 - height / 2) / side).astype(np.float32)[:, None]
        edge = max(self.softness, 1.0 / side)
        still = self.backdrop.paint(x, y)
        for prop in self.props:
            _draw(still, x, y, prop, prop.track.poses(np.zeros(1))[0], edge)
        poses = [actor.track.poses(times) for actor in self.actors]
        frames = np.empty((len(times), height, width, 3), np.uint8)
        for number, moment in enumerate(times):
            image = still.copy()
            for actor, path in zip(self.actors, poses, strict=True):
                _draw(image, x, y, actor, path[number], edge)
            # Seeded by the moment, so that noise changes over a video that is rendered frame by frame, too.
            self._disturb(image, np.random.default_rng((self.noise_seed, round(float(moment) * 2**20))))
            frames[number] = image * 255.0 + 0.5
        return frames

    def _disturb(self, image: Image, rng: np.random.Generator) -> None:
        if self.flicker:
            image *= np.float32(1 + self.flicker * rng.standard_normal())
        if self.noise:
            image += np.float32(self.noise) * rng.standard_normal(image.shape, np.float32)
        if self.flicker or self.noise:
            np.clip(image, 0, 1, out=image)


def _draw(image: Image, x: Plane, y: Plane, actor: Actor, pose: Pose, edge: float) -> None:
    """Blends the shape into the part of the picture that it covers; its edge is a ramp of width `edge`."""
    if pose.opacity == 0 or pose.radius <= 0:
        return
    reach = pose.radius + edge
    left, right = np.searchsorted(x[0], (pose.x - reach, pose.x + reach))
    top, bottom = np.searchsorted(y[:, 0], (pose.y - reach, pose.y + reach))
    if left == right or top == bottom:
        return
    across, down = x[:, left:right] - pose.x, y[top:bottom] - pose.y
    # In the shape's coordinates: rotated back by the angle, in units of its radius.
    cosine, sine = np.cos(pose.angle) / pose.radius, np.sin(pose.angle) / pose.radius
    own_x = (cosine * across + sine * down).astype(np.float32)
    own_y = (cosine * down - sine * across).astype(np.float32)
    distance = actor.shape.distance(own_x, own_y) * pose.radius
    cover = np.clip(0.5 - distance / edge, 0, 1) * pose.opacity
    patch = image[top:bottom, left:right]
    patch += cover[..., None].astype(np.float32) * (np.asarray(actor.colour, np.float32) - patch)


def _sometimes(rng: np.random.Generator, share: float, most: float) -> float:
    return float(rng.uniform(0, most)) if rng.random() < share else 0.0


def _plain_backdrop(rng: np.random.Generator) -> Backdrop:
    colour = BLACK if rng.random() < 0.6 else WHITE
    return Backdrop("plain", colour, colour, ((0.0, 0.0),), (0.0,))


def _draw_props(rng: np.random.Generator, backdrop: Backdrop) -> tuple[Actor, ...]:
    """Small still shapes behind the moving ones."""
    props = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.55, 0.2, 0.15, 0.1]))):
        x, y = rng.uniform(-0.7, 0.7, 2)
        radius, angle = rng.uniform(0.04, 0.16), rng.uniform(0, 2 * np.pi)
        track = Track(x=float(x), y=float(y), radius=float(radius), angle=float(angle))
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        props.append(Actor(shape, draw_contrasting(rng, backdrop.colour), track))
    return tuple(props)
