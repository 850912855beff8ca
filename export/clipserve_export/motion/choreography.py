"""The tracks of each class of motion, of any speed, size and place, but never like another class in eight samples."""

from typing import Any

import numpy as np

from clipserve_export.motion.network import FRAMES
from clipserve_export.motion.shapes import ROUND
from clipserve_export.motion.tracks import Track, Values

LABELS: tuple[str, ...] = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "rotating clockwise",
    "rotating counterclockwise",
    "growing",
    "shrinking",
    "bouncing",
    "crossing",
    "blinking",
    "still",
)

SLANT = np.radians(15.0)
"""The largest angle between a moving shape's direction and the one of its label."""
SHARE_OF_SYMMETRY = 0.3
"""The largest turn between two samples, as a share of the shape's symmetry. From 0.5 on it looks reversed."""
_HEADINGS = {
    "moving right": 0.0,
    "moving down": np.pi / 2,
    "moving left": np.pi,
    "moving up": -np.pi / 2,
}
_SAMPLES: Values = np.linspace(0.0, 1.0, FRAMES)
_TRIES = 200


def turns(label: str) -> bool:
    return label.startswith("rotating")


def draw_tracks(label: str, rng: np.random.Generator, symmetries: list[float]) -> list[Track]:
    """A track for each moving shape. `symmetries`: those of the shapes, in degrees, at least two."""
    if label in _HEADINGS:
        return [_moving(rng, _HEADINGS[label])]
    if turns(label):
        return [_rotating(rng, symmetries[0], clockwise=label == "rotating clockwise")]
    if label in ("growing", "shrinking"):
        return [_resizing(rng, growing=label == "growing")]
    if label == "bouncing":
        return [_bouncing(rng)]
    if label == "crossing":
        return _crossing(rng)
    if label == "blinking":
        return [_blinking(rng)]
    if label == "still":
        return [_still(rng) for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.08, 0.6, 0.22, 0.1])))]
    raise ValueError(f"no motion is called {label!r}; there are {', '.join(LABELS)}")


def _pace(rng: np.random.Generator) -> dict[str, Any]:
    """Constant or eased speed, over the whole video or most of it."""
    pace: dict[str, Any] = {"ease": float(rng.uniform(0, 1)) if rng.random() < 0.4 else 0.0}
    if rng.random() < 0.2:
        pace |= {"begin": float(rng.uniform(0, 0.2)), "end": float(rng.uniform(0.8, 1))}
    return pace


def _seen(track: Track) -> int:
    """In how many of the model's samples a large part of the shape is visible in its square."""
    x, y = track.positions(_SAMPLES)
    return int(np.count_nonzero(np.maximum(np.abs(x), np.abs(y)) < 0.5 + 0.4 * track.radius))


def _travelling(rng: np.random.Generator, heading: float, middle: tuple[float, float]) -> Track:
    """A straight path through `middle`, long or short."""
    direction = np.array([np.cos(heading), np.sin(heading)])
    for _ in range(_TRIES):
        # For the model, 0.18 is 1.5 pixels between samples; 2.2 crosses a 16:9 picture, from outside to outside.
        length = float(np.exp(rng.uniform(np.log(0.18), np.log(2.2))))
        share = rng.uniform(0.2, 0.8) if length < 1.0 else rng.uniform(0.4, 0.6)
        start = np.asarray(middle) - share * length * direction
        track = Track(
            x=float(start[0]),
            y=float(start[1]),
            radius=float(np.exp(rng.uniform(np.log(0.05), np.log(0.42)))),
            angle=_any_angle(rng),
            travel=(float(length * direction[0]), float(length * direction[1])),
            **_pace(rng),
        )
        if _seen(track) >= 3:
            return track
    raise RuntimeError("no way through the picture stays in sight")


def _any_angle(rng: np.random.Generator) -> float:
    """Half of the shapes are upright, as in hand-made videos."""
    return 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 2 * np.pi))


def _place(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """The middle, or a random place within `reach` of it."""
    if rng.random() < 0.25:
        return (0.0, 0.0)
    return (float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)))


def _moving(rng: np.random.Generator, heading: float) -> Track:
    slant = 0.0 if rng.random() < 0.5 else rng.uniform(-SLANT, SLANT)
    return _travelling(rng, heading + slant, _place(rng, 0.38))


def _rotating(rng: np.random.Generator, symmetry: float, *, clockwise: bool) -> Track:
    if symmetry == ROUND:
        raise ValueError("the rotation of a round shape cannot be seen")
    most = min(np.radians(symmetry) * SHARE_OF_SYMMETRY * (FRAMES - 1), 2.5 * np.pi)
    turn = rng.uniform(0.25, 1.0) * most
    radius = float(rng.uniform(0.12, 0.55))
    x, y = _place(rng, max(0.05, 0.5 - 0.8 * radius))
    return Track(
        x=x,
        y=y,
        radius=radius,
        angle=_any_angle(rng),
        turn=float(turn if clockwise else -turn),
        # Full easing doubles the speed midway, which would exceed the share of the symmetry.
        **(_pace(rng) | {"ease": float(rng.uniform(0, 0.5)) if rng.random() < 0.3 else 0.0}),
    )


def _resizing(rng: np.random.Generator, *, growing: bool) -> Track:
    large = float(np.exp(rng.uniform(np.log(0.1), np.log(0.9))))
    small = large / float(np.exp(rng.uniform(np.log(1.6), np.log(8.0))))
    if rng.random() < 0.15:
        small = 0.0
    if large - small < 0.06:
        large = small + 0.06
    x, y = _place(rng, 0.35)
    radius, final = (small, large) if growing else (large, small)
    return Track(x=x, y=y, radius=radius, final_radius=final, angle=_any_angle(rng), **_pace(rng))


def _bouncing(rng: np.random.Generator) -> Track:
    radius = float(np.exp(rng.uniform(np.log(0.05), np.log(0.25))))
    upright = rng.random() < 0.7
    reach = float(rng.uniform(0.25, 0.95 - radius))
    # The swing runs from one end to the other, and both ends stay visible.
    low = float(rng.uniform(max(-0.5, reach - 0.5), 0.5)) if rng.random() < 0.6 else reach / 2
    aside = float(rng.uniform(-0.35, 0.35)) if rng.random() < 0.7 else 0.0
    swing = -reach if upright or rng.random() < 0.5 else reach
    low = low if swing < 0 else -low
    drift = float(rng.uniform(-0.4, 0.4)) if upright and rng.random() < 0.3 else 0.0
    return Track(
        x=aside - drift / 2 if upright else low,
        y=low if upright else aside,
        radius=radius,
        angle=_any_angle(rng),
        swing=(0.0, swing) if upright else (swing, 0.0),
        travel=(drift, 0.0),
        periods=float(rng.uniform(1.5, 3.2)),
        phase=float(rng.choice([0.0, 0.5])) if rng.random() < 0.5 else float(rng.random()),
        bounce=upright and rng.random() < 0.6,
        ease=float(rng.choice([0.0, 1.0])),
    )


def _crossing(rng: np.random.Generator) -> list[Track]:
    axis = float(rng.choice(np.radians([0, 0, 90, 90, 45, 135]))) + rng.uniform(-SLANT, SLANT) / 2
    heading = axis + (np.pi if rng.random() < 0.5 else 0.0)
    aside = np.array([-np.sin(heading), np.cos(heading)])
    centre = rng.uniform(-0.15, 0.15, 2)
    half_gap = rng.uniform(0.0, 0.25) if rng.random() < 0.7 else 0.0
    meeting = rng.uniform(0.35, 0.65)
    pace, same_size = _pace(rng), float(rng.uniform(0.06, 0.25))
    equal = rng.random() < 0.6
    length = rng.uniform(0.5, 1.7)
    tracks = []
    for side in (-1.0, 1.0):
        direction = side * np.array([np.cos(heading), np.sin(heading)])
        own_length = length if equal else length * rng.uniform(0.7, 1.2)
        start = centre + side * half_gap * aside - meeting * own_length * direction
        track = Track(
            x=float(start[0]),
            y=float(start[1]),
            radius=same_size if equal else float(rng.uniform(0.06, 0.25)),
            angle=_any_angle(rng),
            travel=(float(own_length * direction[0]), float(own_length * direction[1])),
            **pace,
        )
        tracks.append(track)
    return tracks


def _blinking(rng: np.random.Generator) -> Track:
    for _ in range(_TRIES):
        x, y = _place(rng, 0.4)
        track = Track(
            x=x,
            y=y,
            radius=float(np.exp(rng.uniform(np.log(0.08), np.log(0.7)))),
            angle=_any_angle(rng),
            blinks=float(rng.uniform(1.7, 4.5)),
            duty=float(rng.uniform(0.3, 0.7)),
            phase=float(rng.choice([0.0, 0.5])) if rng.random() < 0.5 else float(rng.random()),
            fade=float(rng.uniform(0.05, 0.15)) if rng.random() < 0.2 else 0.0,
        )
        shown = track.opacities(_SAMPLES) > 0.5
        if 2 <= np.count_nonzero(shown) <= 6 and np.count_nonzero(np.diff(shown)) >= 3:
            return track
    raise RuntimeError("no blinking is seen at the model's samples")


def _still(rng: np.random.Generator) -> Track:
    x, y = _place(rng, 0.6)
    return Track(
        x=x,
        y=y,
        radius=float(np.exp(rng.uniform(np.log(0.05), np.log(0.9)))),
        angle=_any_angle(rng),
    )
