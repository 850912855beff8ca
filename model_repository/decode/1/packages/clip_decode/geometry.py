"""The shape of the clips that a network takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

# Stride is counted at this rate, as SlowFast and PyTorchVideo do (TARGET_FPS 30).
STRIDE_FRAMES_PER_SECOND = 30

# What a geometry is called that has no name.
CLIP = "clip"

_BOUNDS = {"frames": 256, "stride": 256, "short_side": 2048, "crop": 2048}


@dataclass(frozen=True)
class Geometry:
    """Size of a clip in time and space.

    Attributes:
        frames: T, the number of frames, 1 to 256.
        stride: 30ths of a second between two frames, 1 to 256. Only policy "clip" of `Sampling` uses it.
        short_side: pixels of the short side that an upright frame is scaled to, 1 to 2048.
        crop: S, the side in pixels of the square that is cut from the scaled frame, 1 to `short_side`.

    Raises:
        TypeError: a value is not a whole number.
        ValueError: a value is out of bounds.
    """

    frames: int
    stride: int
    short_side: int
    crop: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}, but a geometry is made of whole numbers")
            if not 1 <= value <= _BOUNDS[name]:
                raise ValueError(f"{name} is {value}, but 1 to {_BOUNDS[name]} is allowed")
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} does not fit into a frame with short side {self.short_side}")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Geometry:
        """Read {"frames": 16, "stride": 5, "short_side": 256, "crop": 256}; a number may be text."""
        if set(config) != set(_BOUNDS):
            raise ValueError(f"a geometry has {sorted(_BOUNDS)}, this one has {sorted(config)}")
        return cls(**{name: read_digits(value) for name, value in config.items()})  # type: ignore[arg-type]

    @property
    def clip_thirtieths(self) -> int:
        """Length of a clip in 30ths of a second."""
        return self.frames * self.stride


def read_digits(value: object) -> object:
    """Convert a text of digits to its number; return anything else unchanged, for the caller to check."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value
