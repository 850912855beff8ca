"""What is asked about a video: which labels, what else, and which part of the video to look at."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from clipserve import defaults
from clipserve.amounts import is_one_of, read_real, read_truth, read_whole
from clipserve.errors import InvalidRequest

Sampling: TypeAlias = Literal["uniform", "clip"]
Quality: TypeAlias = Literal["fast", "reference"]

# What is allowed, and its name. top_k goes over the wire as 64 bits.
_COUNTS: dict[str, tuple[range, str]] = {
    "top_k": (range(1, 2**63), "a whole number from 1 on"),
    "views": (range(1, defaults.MAX_CLIPS + 1), f"a whole number from 1 to {defaults.MAX_CLIPS}"),
    "crops": (range(1, 4, 2), "1 or 3"),
}


class Options(TypedDict, total=False):
    """The fields of `Question` as keyword arguments, for what hands them on, and the deadline of each call."""

    top_k: int
    features: bool
    report: bool
    sampling: Sampling
    views: int | None
    crops: int | None
    start: float | None
    end: float | None
    quality: Quality
    timeout_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to ask, checked before anything is sent.

    Attributes:
        top_k: how many labels to return; a model with fewer returns all it has.
        features: also return the embedding, float32 [D].
        report: also return what the server did with the video.
        sampling: "uniform": the model's frames spread over the whole video. "clip": `views` clips of
            the length the model was trained on, spread over the video: the published test protocol.
        views: clips in time, 1 to 30; more than one needs sampling="clip". None: 1.
        crops: squares of each frame, 1 (the centre) or 3 (along the longer side). None: 1.
        start, end: seconds from the first frame on; only what lies between is looked at. None: all.
        quality: of scaling: "fast", or "reference", which repeats PyTorchVideo's to the rounding.

    Raises:
        InvalidRequest: a value is not what is allowed.
    """

    top_k: int = defaults.TOP_K
    features: bool = False
    report: bool = False
    sampling: Sampling = defaults.SAMPLING
    views: int | None = None
    crops: int | None = None
    start: float | None = None
    end: float | None = None
    quality: Quality = defaults.QUALITY

    def __post_init__(self) -> None:
        # Python's own numbers from here on, which JSON and gRPC know. object: the class is frozen.
        object.__setattr__(self, "top_k", _read_count("top_k", self.top_k))
        for name in ("views", "crops", "start", "end"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, (_read_count if name in _COUNTS else _read_moment)(name, value))
        for name in ("features", "report"):
            object.__setattr__(self, name, _read_truth(name, getattr(self, name)))
        if not is_one_of(Sampling, self.sampling):
            raise InvalidRequest(f"sampling is 'uniform' or 'clip', got {self.sampling!r}")
        if not is_one_of(Quality, self.quality):
            raise InvalidRequest(f"quality is 'fast' or 'reference', got {self.quality!r}")
        views, crops = self.views or 1, self.crops or 1
        if views > 1 and self.sampling == "uniform":
            raise InvalidRequest(
                f"uniform sampling has one view, got views={views}: add sampling='clip' (--sampling clip)"
            )
        if views * crops > defaults.MAX_CLIPS:
            raise InvalidRequest(
                f"views x crops is at most {defaults.MAX_CLIPS}, got {views} x {crops}: take fewer views or crops"
            )
        if self.end is not None and self.end <= (self.start or 0):
            raise InvalidRequest(f"end comes after start, got start={self.start!r}, end={self.end!r}")

    def parameters(self) -> dict[str, str | int | float]:
        """Request parameters for the decode step; what is left at its default is not sent."""
        parameters: dict[str, str | int | float] = {}
        if self.sampling != defaults.SAMPLING:
            parameters["policy"] = self.sampling
        if self.views is not None:
            parameters["views"] = self.views
        if self.crops is not None:
            parameters["crops"] = self.crops
        if self.start is not None:
            parameters["start_seconds"] = self.start
        if self.end is not None:
            parameters["end_seconds"] = self.end
        if self.quality != defaults.QUALITY:
            parameters["quality"] = self.quality
        return parameters


def read_options(options: Options) -> tuple[Question, float | None]:
    """The question, and the deadline, that keyword arguments state.

    Raises:
        InvalidRequest: a name or a value is not what is allowed.
    """
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise InvalidRequest(f"no such option: {', '.join(unknown)}; there are {', '.join(Options.__annotations__)}")
    fields: dict[str, Any] = dict(options)
    timeout_seconds = fields.pop("timeout_seconds", None)
    return Question(**fields), timeout_seconds


def ask_for_features(options: Options) -> Options:
    """The same options, for one who wants vectors and no labels."""
    asked: Options = {"top_k": 1}
    asked.update(options)
    asked["features"] = True
    return asked


def _read_count(name: str, value: object) -> int:
    allowed, text = _COUNTS[name]
    if (count := read_whole(value)) is None or count not in allowed:
        raise InvalidRequest(f"{name} is {text}, got {value!r}")
    return count


def _read_truth(name: str, value: object) -> bool:
    if (truth := read_truth(value)) is None:
        raise InvalidRequest(f"{name} is True or False, got {value!r}")
    return truth


def _read_moment(name: str, value: object) -> float:
    if (seconds := read_real(value)) is None or not 0 <= seconds < math.inf:
        raise InvalidRequest(f"{name} is a number of seconds from 0 on, got {value!r}")
    return seconds
