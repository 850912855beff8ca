"""Which frames of a video to select, and how to scale them.

Policy "uniform" is PyTorchVideo's `uniform_temporal_subsample`: T frames by number, from the first to the last.

Policy "keyframes" is faster and not exact. It moves the frames of "uniform" to the nearest key frames, which depend on
no other frame. They are distinct and in order. If there are fewer than T key frames between start and end, or in a full
decode, the frames are those of "uniform". Decoding may begin at a key frame: an I frame of H.264 that is not an IDR
frame does not count, even if the container marks it.

Policy "clip" is the published test protocol. Views start where PyTorchVideo's `ConstantClipsPerVideoSampler` and
SlowFast's `get_start_end_idx` start them: the first at 0, the last so that it ends with the video, the others evenly
between; a single view starts at 0. Frames of a view are `stride` 30ths of a second apart, at any frame rate of the
file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

from clip_decode.errors import InvalidRequest
from clip_decode.geometry import read_digits

Policy = Literal["uniform", "clip", "keyframes"]
Quality = Literal["fast", "reference", "draft"]

MAX_VIEWS = 30
MAX_VIEWS_TIMES_CROPS = 30  # The largest published protocol: 10 views x 3 crops.
MAX_SECONDS = 1_000_000.0

_CHOICES: dict[str, tuple[object, ...]] = {
    "policy": get_args(Policy),
    "crops": (1, 3),
    "quality": get_args(Quality),
}


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video to select, and how to scale them.

    Attributes:
        policy: "uniform" spreads the frames over the whole video; "clip" takes views of consecutive frames; "keyframes"
            moves the frames of "uniform" to the nearest key frames. See the module.
        views: temporal views, 1 to 30; more than one needs policy "clip".
        crops: squares cut from each frame: 1 is the centre; 3 are left, centre and right along the longer side (top,
            centre and bottom of a portrait frame). At most 30 views x crops.
        start_seconds, end_seconds: the span to sample, counted from the first frame; None is the start or the end of
            the video.
        quality: "fast" scales with swscale's area averaging; "reference" repeats PyTorchVideo's scaling within half a
            level of 255. picture/scaling.py compares them. "draft" scales as "fast", and moves each frame to the
            nearest one that other frames depend on, so that fewer are decoded. It is not exact. A full decode gives
            exact frames.

    Raises:
        InvalidRequest: a value has the wrong type or is out of bounds.
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
        if self.views > 1 and self.policy != "clip":
            raise InvalidRequest(f"views is {self.views}, but policy {self.policy} has one view; use policy clip")
        self._check_span()

    def _check_span(self) -> None:
        for name in ("start_seconds", "end_seconds"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest(f"{name} is {_shown(value)}, but a number is needed")
            # NaN fails this comparison, too.
            if not 0 <= value <= MAX_SECONDS:
                raise InvalidRequest(f"{name} is {_shown(value)}, but 0 to {MAX_SECONDS:.0f} is allowed")
        start, end = self.start_seconds or 0.0, self.end_seconds
        if end is not None and end <= start:
            raise InvalidRequest(f"end_seconds {end} is not after start_seconds {start}")

    @property
    def clips(self) -> int:
        """V: clips of this video, views x crops."""
        return self.views * self.crops

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, object], *, others: Sequence[str] = ()) -> Sampling:
        """Read request parameters; a number may come as text, as it does over HTTP.

        others: names that the request may have besides; an error about an unknown name lists them, too.

        Raises:
            InvalidRequest: a name is unknown, or a value has the wrong type or is out of bounds.
        """
        known = [field.name for field in fields(cls)]
        values: dict[str, object] = {}
        for name, value in parameters.items():
            if name not in known:
                raise InvalidRequest(f"no such parameter: {_shown(name)}; there are {', '.join([*known, *others])}")
            if name in ("views", "crops"):
                value = read_digits(value)
            elif name in ("start_seconds", "end_seconds"):
                value = _read_seconds(name, value)
            values[name] = value
        return cls(**values)  # type: ignore[arg-type]


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_float(value: object) -> float:
    """A number, or the text of one, as a float; NaN for anything else."""
    try:
        return float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def _read_seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = read_float(value)
    if not math.isfinite(number):
        raise InvalidRequest(f"{name} is {_shown(value)}, but a number is needed")
    return number
