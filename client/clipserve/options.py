"""What callers can ask for: one dataclass for each group of options, checked when it is made.

SamplingOptions            which part of a video the model looks at
└── RequestOptions         + what to return: all that a request to the server says about a video
    ├── ClassifyArguments  + video, retry, timeout_seconds: the arguments of `classify`
    └── RunArguments       + source, parallel, on_error, ...: the arguments of `classify_many`
        └── EmbedArguments   with other defaults: the arguments of `embed`

Signatures, `help()`, the command line and the page take names, types, defaults and texts from here. To add a request
option: a field with its Doc, a check in `__post_init__`, and a line in `RequestOptions.parameters`.
"""

import math
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.checks import check_bool, check_choice, check_int, check_timeout, read_float
from clipserve.errors import InvalidRequest
from clipserve.signatures import Doc
from clipserve.sources.source import Source
from clipserve.sources.videos import VideoSource

Sampling: TypeAlias = Literal["uniform", "clip"]
Quality: TypeAlias = Literal["fast", "reference"]
OnError: TypeAlias = Literal["keep", "raise", "drop"]

MAX_CLIPS = 30  # views x crops: the server's limit, and the largest published protocol (10 x 3)

_FROM_1 = range(1, 2**63)  # top_k is sent as 64 bits


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Which frames of a video the model sees, and how they are scaled.

    Raises:
        InvalidRequest: a value is not what is allowed.
    """

    sampling: Annotated[
        Sampling,
        Doc(
            "'uniform' spreads the model's frames over the whole video; 'clip' takes clips of the length that the model"
            " was trained on, as the published test protocols do"
        ),
    ] = "uniform"
    views: Annotated[
        int | None,
        Doc(f"with sampling 'clip': how many clips, spread over the video, 1 to {MAX_CLIPS}", "N", default="1"),
    ] = None
    crops: Annotated[
        int | None,
        Doc("squares cut from each frame: 1, the centre, or 3 along the longer side", "1|3", default="1"),
    ] = None
    start: Annotated[
        float | None, Doc("leave out what comes before this time, in seconds from the first frame on", "SECONDS")
    ] = None
    end: Annotated[
        float | None, Doc("leave out what comes after this time, in seconds from the first frame on", "SECONDS")
    ] = None
    quality: Annotated[
        Quality, Doc("how frames are scaled: 'fast', or 'reference', which rounds exactly as PyTorchVideo does")
    ] = "fast"

    def __post_init__(self) -> None:
        check_choice("sampling", self.sampling, Sampling)
        if self.views is not None:
            _set(
                self,
                "views",
                check_int("views", self.views, range(1, MAX_CLIPS + 1), f"a whole number from 1 to {MAX_CLIPS}"),
            )
        if self.crops is not None:
            _set(self, "crops", check_int("crops", self.crops, range(1, 4, 2), "1 or 3"))
        for name in ("start", "end"):
            if (value := getattr(self, name)) is not None:
                _set(self, name, _check_time(name, value))
        check_choice("quality", self.quality, Quality)
        views, crops = self.views or 1, self.crops or 1
        if views > 1 and self.sampling == "uniform":
            raise InvalidRequest(
                f"uniform sampling has one view, got views={views}: add sampling='clip' (--sampling clip)"
            )
        if views * crops > MAX_CLIPS:
            raise InvalidRequest(
                f"views x crops is at most {MAX_CLIPS}, got {views} x {crops}: take fewer views or crops"
            )
        if self.end is not None and self.end <= (self.start or 0):
            raise InvalidRequest(f"end comes after start, got start={self.start!r}, end={self.end!r}")


@dataclass(frozen=True, kw_only=True)
class RequestOptions(SamplingOptions):
    """What one request asks the server about a video."""

    top_k: Annotated[int, Doc("how many labels to return; a model with fewer returns all of them", "N")] = 5
    features: Annotated[bool, Doc("also return the embedding, float32 [D]")] = False
    report: Annotated[bool, Doc("also return what the server did with the video")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _set(self, "top_k", check_int("top_k", self.top_k, _FROM_1, "a whole number from 1 on"))
        for name in ("features", "report"):
            _set(self, name, check_bool(name, getattr(self, name)))

    def settings(self) -> dict[str, Any]:
        """All that the answer depends on, by name."""
        return {option.name: getattr(self, option.name) for option in fields(RequestOptions)}

    def parameters(self) -> dict[str, str | int | float]:
        """Request parameters for the decode step; defaults are not sent."""
        parameters: dict[str, str | int | float | None] = {
            "policy": None if self.sampling == RequestOptions.sampling else self.sampling,
            "views": self.views,
            "crops": self.crops,
            "start_seconds": self.start,
            "end_seconds": self.end,
            "quality": None if self.quality == RequestOptions.quality else self.quality,
        }
        return {name: value for name, value in parameters.items() if value is not None}


@dataclass(frozen=True)
class ClassifyArguments(RequestOptions):
    """The arguments of `classify`."""

    video: Annotated[
        VideoSource,
        Doc(
            "path of a video file, an http(s) address, its bytes, or a file opened with mode 'rb', which is read from"
            " its current position on"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    retry: Annotated[
        bool,
        Doc(
            "send the request again while the server is busy, away or loading, until the deadline. Off by default: who"
            " waits for one answer wants to know at once what is wrong"
        ),
    ] = False
    timeout_seconds: Annotated[float | None, Doc("deadline of this call; None takes the classifier's", "SECONDS")] = (
        None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout_seconds is not None:
            _set(self, "timeout_seconds", check_timeout(self.timeout_seconds))


@dataclass(frozen=True)
class RunArguments(RequestOptions):
    """The arguments of `classify_many`."""

    source: Annotated[
        Source,
        Doc(
            "a path, pattern, folder, http(s) address, CSV or JSON lines file, data frame, bytes, open file, or any"
            " iterable of these, read only as far as it is needed; see `read_entries`"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    parallel: Annotated[int, Doc("how many videos to send at once", "N")] = 5
    on_error: Annotated[
        OnError,
        Doc(
            "a video that fails becomes a row with its error ('keep'), ends the run ('raise'), or is left out and"
            " counted ('drop'). An unknown model and missing credentials end the run in any case"
        ),
    ] = "keep"
    ordered: Annotated[bool, Doc("rows come in the order of the source; False: as they finish")] = True
    progress: Annotated[
        bool | None,
        Doc(
            "show a progress bar on stderr, or in the notebook; None: when stderr is a terminal, or when a notebook's"
            " run takes longer than a second"
        ),
    ] = None
    retry_seconds: Annotated[
        float | None,
        Doc(
            "how long to wait for a server that is busy, away or loading, where that is longer than the deadline of a"
            " call; None: as long as the deadline, and only for a server that has answered before in this run",
            "SECONDS",
        ),
    ] = None
    timeout_seconds: Annotated[float | None, Doc("deadline of each call; None takes the classifier's", "SECONDS")] = (
        None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _set(self, "parallel", check_int("parallel", self.parallel, _FROM_1, "a whole number from 1 on"))
        check_choice("on_error", self.on_error, OnError)
        if self.retry_seconds is not None:
            seconds = read_float(self.retry_seconds)
            if seconds is None or seconds < 0:
                raise InvalidRequest(
                    f"retry_seconds is a number of seconds from 0 on, or None, got {self.retry_seconds!r}"
                )
            _set(self, "retry_seconds", seconds)
        if self.timeout_seconds is not None:
            _set(self, "timeout_seconds", check_timeout(self.timeout_seconds))


@dataclass(frozen=True)
class EmbedArguments(RunArguments):
    """The arguments of `embed`."""

    _: KW_ONLY
    top_k: Annotated[int, Doc("how many labels to return beside the vector", "N")] = 1
    features: Annotated[bool, Doc("always on")] = True
    on_error: Annotated[
        OnError, Doc("as for `classify_many`; with 'keep' failures are also among the rows, as NaN")
    ] = "drop"

    def __post_init__(self) -> None:
        super().__post_init__()
        _set(self, "features", True)


def _check_time(name: str, value: object) -> float:
    if (seconds := read_float(value)) is None or not 0 <= seconds < math.inf:
        raise InvalidRequest(f"{name} is a number of seconds from 0 on, got {value!r}")
    return seconds


def _set(options: SamplingOptions, name: str, value: object) -> None:
    """Replace a field by its checked value, although the class is frozen."""
    object.__setattr__(options, name, value)
