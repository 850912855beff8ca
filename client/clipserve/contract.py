"""The clip contract of a model: its input, its output, and where it comes from.

Decoding, configs, checks and documentation use it. It is stored beside the network's file as contract.json, and in the
config of the public model, where clients read it.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, TypeAlias, get_args

from clipserve.options import MAX_CLIPS, Sampling

ResizeRule: TypeAlias = Literal["short side"]
ChannelOrder: TypeAlias = Literal["RGB", "BGR"]

MAX_FRAMES, MAX_STRIDE, MAX_SIDE = 256, 256, 2048  # what the decode step takes: clip_decode/geometry.py
CHANNELS = 3
PARAMETER = "contract"  # of the public model's config, as JSON
WEIGHTS_FIELDS = ("sampling", "views", "crops", "accuracy", "classes", "weights_licence", "weights_source")


@dataclass(frozen=True, kw_only=True)
class ClipContract:
    """The input and the output of a model.

    Attributes:
        frames: T, the number of frames of a clip, 1 to 256.
        stride: distance between two frames, in thirtieths of a second, 1 to 256.
        short_side: the short side of a frame is scaled to this many pixels, 1 to 2048.
        crop: S, the side of the square that is cut from the frame, in pixels, 1 to `short_side`.
        resize: "short side": scale and keep the aspect ratio, then cut the central square, or three squares.
        mean, deviation: of each channel, for pixels in [0, 1], in the order of `channel_order`. The network sees
            (pixel - mean) / deviation.
        channel_order: of the network's input.
        sampling, views, crops: the published test protocol of `accuracy`. A request chooses its own values, by default
            one view of "uniform".
        accuracy: the accuracy that its authors published, and where.
        classes: K, the number of classes; None before the weights are known.
        feature_size: D, the number of values of an embedding; None for a model that returns only scores.
        code_licence, code_source: of the network's code.
        weights_licence, weights_source: of its weights.

    Raises:
        ValueError: a value is not allowed. The message says what came and what is allowed.
    """

    frames: int
    stride: int
    short_side: int
    crop: int
    resize: ResizeRule = "short side"
    mean: tuple[float, ...] = (0.0,) * CHANNELS
    deviation: tuple[float, ...] = (1.0,) * CHANNELS
    channel_order: ChannelOrder = "RGB"
    sampling: Sampling = "uniform"
    views: int = 1
    crops: int = 1
    accuracy: str = ""
    classes: int | None = None
    feature_size: int | None = None
    code_licence: str = ""
    code_source: str = ""
    weights_licence: str = ""
    weights_source: str = ""

    def __post_init__(self) -> None:
        whole = {"frames": MAX_FRAMES, "stride": MAX_STRIDE, "short_side": MAX_SIDE, "crop": MAX_SIDE}
        for name, most in (whole | {"views": MAX_CLIPS, "crops": MAX_CLIPS}).items():
            _require_whole(name, getattr(self, name), most)
        for name in ("classes", "feature_size"):
            if getattr(self, name) is not None:
                _require_whole(name, getattr(self, name), 2**31 - 1)
        if self.crop > self.short_side:
            raise ValueError(f"crop {self.crop} does not fit into frames whose short side is {self.short_side}")
        if self.crops not in (1, 3) or self.views * self.crops > MAX_CLIPS:
            raise ValueError(
                f"views x crops is {self.views} x {self.crops}, but crops must be 1 or 3, and the product at most"
                f" {MAX_CLIPS}"
            )
        for name in ("mean", "deviation"):
            object.__setattr__(self, name, _read_channels(name, getattr(self, name)))
        if min(self.deviation) <= 0:
            raise ValueError(f"deviation is {list(self.deviation)}, but each value must be above 0")
        for name, allowed in (("resize", ResizeRule), ("channel_order", ChannelOrder), ("sampling", Sampling)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be {' or '.join(get_args(allowed))}")
        for name in ("accuracy", "code_licence", "code_source", "weights_licence", "weights_source"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be a text")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """A contract of these values, as JSON and TOML write them. Raises ValueError."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(values.keys() - known):
            raise ValueError(f"a contract has no {unknown[0]!r}; it has {', '.join(known)}")
        if missing := [name for name in ("frames", "stride", "short_side", "crop") if name not in values]:
            raise ValueError(f"a contract needs {missing[0]}: frames, stride, short_side and crop have no default")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; ignores fields that a later version has added. Raises ValueError."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a contract must be a JSON object, got {type(values).__name__}")
        known = {field.name for field in fields(cls)}
        return cls.from_values({name: value for name, value in values.items() if name in known})

    def to_json(self, *, indent: int | None = None) -> str:
        """All values, by name."""
        return json.dumps(asdict(self), indent=indent)


def _require_whole(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r}, but must be a whole number from 1 to {most}")


def _read_channels(name: str, value: object) -> tuple[float, ...]:
    """Three numbers; one number stands for all three channels."""
    numbers: Any = value if isinstance(value, list | tuple) else [value] * CHANNELS
    if len(numbers) != CHANNELS or not all(map(_is_finite, numbers)):
        raise ValueError(f"{name} is {value!r}, but must be a number for each of {CHANNELS} channels")
    return tuple(float(number) for number in numbers)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
