"""What is asked about a video: which labels, what else, and which part of the video to look at."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from clipserve import defaults
from clipserve.errors import InvalidRequest

Sampling: TypeAlias = Literal["uniform", "clip"]
Quality: TypeAlias = Literal["fast", "reference"]


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
        if not _is_whole(self.top_k) or self.top_k < 1:
            raise InvalidRequest(f"top_k is a whole number from 1 on, got {self.top_k!r}")
        if self.sampling not in get_args(Sampling):
            raise InvalidRequest(f"sampling is 'uniform' or 'clip', got {self.sampling!r}")
        if self.quality not in get_args(Quality):
            raise InvalidRequest(f"quality is 'fast' or 'reference', got {self.quality!r}")
        self._check_clips()
        self._check_span()

    def _check_clips(self) -> None:
        if self.views is not None and not (_is_whole(self.views) and 1 <= self.views <= defaults.MAX_CLIPS):
            raise InvalidRequest(f"views is a whole number from 1 to {defaults.MAX_CLIPS}, got {self.views!r}")
        if self.crops is not None and not (_is_whole(self.crops) and self.crops in (1, 3)):
            raise InvalidRequest(f"crops is 1 or 3, got {self.crops!r}")
        views, crops = self.views or 1, self.crops or 1
        if views > 1 and self.sampling == "uniform":
            raise InvalidRequest(
                f"uniform sampling has one view, got views={views}: add sampling='clip' (--sampling clip)"
            )
        if views * crops > defaults.MAX_CLIPS:
            raise InvalidRequest(
                f"views x crops is at most {defaults.MAX_CLIPS}, got {views} x {crops}: take fewer views or crops"
            )

    def _check_span(self) -> None:
        for name, seconds in (("start", self.start), ("end", self.end)):
            if seconds is None:
                continue
            number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not number or not 0 <= seconds < math.inf:
                raise InvalidRequest(f"{name} is a number of seconds from 0 on, got {seconds!r}")
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
            parameters["start_seconds"] = float(self.start)
        if self.end is not None:
            parameters["end_seconds"] = float(self.end)
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


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
