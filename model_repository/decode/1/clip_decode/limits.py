"""How much one video may ask of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from clip_decode.errors import TooLarge


@dataclass(frozen=True)
class Limits:
    """Upper bounds, each checked before the work it bounds is done.

    Attributes:
        max_bytes: of the file. 512 MiB is nine minutes at 8 Mbit/s; twice this can be in memory.
        max_pixels: of one frame. 8192 x 4352 lets 8K UHD (7680 x 4320) through, either way up.
        max_seconds: of video. Four hours.
        max_frames: to walk. Four hours at 60 frames a second are 864,000.

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
        """Read the limits that `config` names, as numbers or digits; the others keep defaults."""
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
    """Refuse a file that has more bytes than the limits allow.

    Raises:
        TooLarge: it has.
    """
    if count > limits.max_bytes:
        raise TooLarge(f"the file has {count} bytes, but {limits.max_bytes} are allowed")
