"""The shape of the clips a network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

# Stride is counted at this rate, as SlowFast and PyTorchVideo do (TARGET_FPS 30).
STRIDE_FRAMES_PER_SECOND = 30

_BOUNDS = {"frames": 256, "stride": 256, "short_side": 2048, "crop": 2048}


@dataclass(frozen=True)
class Geometry:
    """One clip: `frames` pictures, `stride` 30ths of a second apart, `crop` x `crop` pixels.

    The upright picture is scaled until its short side has `short_side` pixels, then a square of
    `crop` pixels is cut out. All are positive whole numbers, and crop <= short_side.

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
            raise ValueError(f"crop {self.crop} does not fit into a picture with short side {self.short_side}")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Geometry:
        """Read {"frames": 16, "stride": 5, "short_side": 256, "crop": 256}; digits in text pass."""
        if set(config) != set(_BOUNDS):
            raise ValueError(f"a geometry has {sorted(_BOUNDS)}, this one has {sorted(config)}")
        return cls(**{name: read_digits(value) for name, value in config.items()})  # type: ignore[arg-type]

    @property
    def clip_thirtieths(self) -> int:
        """Length of a clip in 30ths of a second."""
        return self.frames * self.stride


def read_digits(value: object) -> object:
    """The number that a text of digits stands for; anything else as it came, for its reader to judge."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value
