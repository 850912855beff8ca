"""Upper bounds for one video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from clip_decode.errors import TooLarge


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one video. Each is checked before the work that it bounds.

    Attributes:
        max_bytes: bytes of the file. 512 MiB is nine minutes at 8 Mbit/s; twice this can be in memory.
        max_pixels: pixels of one frame. 8192 x 4352 allows 8K UHD (7680 x 4320) in both orientations.
        max_seconds: duration. Four hours.
        max_frames: number of packets. Four hours at 60 frames a second are 864,000.

    Raises:
        TypeError: a value is not a whole number.
        ValueError: a value is not positive.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 8192 * 4352
    max_seconds: int = 4 * 60 * 60
    max_frames: int = 1_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}, but a limit is a whole number")
            if not 1 <= value <= 2**48:
                raise ValueError(f"{name} is {value}, but a limit is between 1 and 2^48")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Limits:
        """Read the limits in `config`, numbers or text; the others keep their defaults."""
        known = {field.name for field in fields(cls)}
        if unknown := set(config) - known:
            raise ValueError(f"no such limit: {sorted(unknown)}; there are {sorted(known)}")
        values: dict[str, int] = {}
        for name, value in config.items():
            try:
                values[name] = int(value) if isinstance(value, str) else value  # type: ignore[assignment]
            except ValueError as error:
                raise ValueError(f"{name} is {value!r}, but a limit is a whole number") from error
        return cls(**values)


def check_bytes(count: int, limits: Limits) -> None:
    """Raise TooLarge for a file with more bytes than the limits allow."""
    if count > limits.max_bytes:
        raise TooLarge(f"the file has {count} bytes, but {limits.max_bytes} are allowed")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Raise TooLarge for a frame with more pixels than the limits allow."""
    if width * height > limits.max_pixels:
        raise TooLarge(f"a frame has {width} x {height} pixels, but {limits.max_pixels} are allowed")
