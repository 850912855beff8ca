"""Which moments of a video are wanted: the request's parameters and the arithmetic of both policies.

`uniform` is PyTorchVideo's `uniform_temporal_subsample`: T frames by number, first to last.
`clip` is the published test protocol. Clips start where PyTorchVideo's
`ConstantClipsPerVideoSampler` and SlowFast's `get_start_end_idx` start them: the first at 0, the
last so that it ends with the video, the others evenly between; a single clip starts at 0. Inside a
clip frames are `stride` 30ths of a second apart, whatever the frame rate of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from clip_decode.errors import InvalidRequest
from clip_decode.geometry import STRIDE_FRAMES_PER_SECOND, Geometry, read_digits

Policy = Literal["uniform", "clip"]
Quality = Literal["fast", "reference"]

MAX_VIEWS = 30
MAX_VIEWS_TIMES_CROPS = 30  # The largest published protocol: 10 clips x 3 crops.
MAX_SECONDS = 1_000_000.0

_CHOICES: dict[str, tuple[object, ...]] = {
    "policy": ("uniform", "clip"),
    "crops": (1, 3),
    "quality": ("fast", "reference"),
}


@dataclass(frozen=True)
class Sampling:
    """What a request wants to see of a video.

    Attributes:
        policy: "uniform" or "clip", see the module.
        views: temporal clips; more than one needs policy "clip".
        crops: squares cut from each frame: 1 is the centre; 3 are left, centre, right along the
            longer side (top, centre, bottom of an upright picture).
        start_seconds, end_seconds: the span to look at, counted from the first frame; None is the
            whole video.
        quality: of scaling, "fast" or "reference", see scaling.py.

    Raises:
        InvalidRequest: a value of the wrong type or out of bounds.
    """

    policy: Policy = "uniform"
    views: int = 1
    crops: int = 1
    start_seconds: float | None = None
    end_seconds: float | None = None
    quality: Quality = "fast"

    def __post_init__(self) -> None:
        for name in ("views", "crops"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidRequest(f"{name} is {_shown(value)}, but a whole number is needed")
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidRequest(f"{name} is {_shown(value)}, but {' or '.join(map(str, allowed))} is allowed")
        if not 1 <= self.views <= MAX_VIEWS:
            raise InvalidRequest(f"views is {_shown(self.views)}, but 1 to {MAX_VIEWS} is allowed")
        if self.views * self.crops > MAX_VIEWS_TIMES_CROPS:
            raise InvalidRequest(
                f"{self.views} views x {self.crops} crops are {self.views * self.crops} clips, but "
                f"at most {MAX_VIEWS_TIMES_CROPS} are allowed"
            )
        if self.views > 1 and self.policy == "uniform":
            raise InvalidRequest(f"views is {self.views}, but policy uniform has one view; use policy clip")
        self._check_span()

    def _check_span(self) -> None:
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest(f"{name} is {_shown(value)}, but a number is needed")
            # Written so that NaN fails it, too.
            if not 0 <= value <= MAX_SECONDS:
                raise InvalidRequest(f"{name} is {_shown(value)}, but 0 to {MAX_SECONDS:.0f} is allowed")
        start, end = self.start_seconds or 0.0, self.end_seconds
        if end is not None and end <= start:
            raise InvalidRequest(f"end_seconds {end} is not after start_seconds {start}")

    @property
    def clips(self) -> int:
        """V: clips a network sees of this video."""
        return self.views * self.crops

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object]) -> Sampling:
        """Read request parameters; a number may come as text, as it does over HTTP.

        Raises:
            InvalidRequest: an unknown name, a wrong type, a value out of bounds.
        """
        known = [field.name for field in fields(cls)]
        values: dict[str, object] = {}
        for name, value in parameters.items():
            if name not in known:
                raise InvalidRequest(f"no such parameter: {_shown(name)}; there are {', '.join(known)}")
            if name in ("views", "crops"):
                value = read_digits(value)
            elif name in ("start_seconds", "end_seconds"):
                value = _real(name, value)
            values[name] = value
        return cls(**values)  # type: ignore[arg-type]


def spread_indices(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """`wanted` frame numbers from 0 to count - 1, equal to PyTorchVideo's, rounding included.

    `torch.linspace` counts in float32 from both ends towards the middle, and the result is cut
    off, not rounded; np.linspace differs from it for about one count in twenty.
    """
    if wanted == 1:
        return np.zeros(1, dtype=np.int64)
    last = np.float32(count - 1)
    step = last / np.float32(wanted - 1)
    number = np.arange(wanted)
    from_start = step * number.astype(np.float32)
    from_end = last - step * (wanted - 1 - number).astype(np.float32)
    values = np.where(number < wanted // 2, from_start, from_end)
    return cast("npt.NDArray[np.int64]", np.clip(values, 0, last).astype(np.int64))


def clip_moments(geometry: Geometry, views: int, start: Fraction, end: Fraction) -> list[list[Fraction]]:
    """For each view, the T moments in seconds at which its frames are taken.

    Moments can lie behind `end` when the video is shorter than a clip: the last frame stands in.
    """
    clip_seconds = Fraction(geometry.clip_thirtieths, STRIDE_FRAMES_PER_SECOND)
    room = max(end - start - clip_seconds, Fraction(0))
    step = Fraction(geometry.stride, STRIDE_FRAMES_PER_SECOND)
    starts = [start + room * view / max(views - 1, 1) for view in range(views)]
    return [[begin + step * number for number in range(geometry.frames)] for begin in starts]


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _real(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InvalidRequest(f"{name} is {_shown(value)}, but a number is needed")
    return number
