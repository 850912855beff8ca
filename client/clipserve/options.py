"""The options of calls: one dataclass for each group of options, checked when it is made.

SamplingOptions            which frames of a video the model gets
└── RequestOptions         + what to return: all that a request to the server says about a video
    ├── ClassifyArguments  + video, retry, timeout_seconds: the arguments of `classify`
    └── RunArguments       + source, parallel, on_error, ...: the arguments of `classify_many`
        └── EmbedArguments   with other defaults: the arguments of `embed`

Signatures, `help()`, the command line and the page take names, types, defaults and texts from here. To add a request
option, add a field, and a line in `RequestOptions.parameters`.
"""

import sys
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.arguments import Argument, CheckedArguments, read_parameters
from clipserve.checks import check_bool, check_choice, check_int, check_positive_int, check_seconds, check_timeout
from clipserve.errors import InvalidRequest
from clipserve.sources.source import Source
from clipserve.sources.videos import VideoSource

Sampling: TypeAlias = Literal["uniform", "clip", "keyframes"]
Quality: TypeAlias = Literal["fast", "reference", "draft"]
OnError: TypeAlias = Literal["keep", "raise", "drop"]

MAX_CLIPS = 30  # views x crops: the server's limit, and the largest published protocol (10 x 3)

_check_time = partial(check_seconds, longest=sys.float_info.max)


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(CheckedArguments):
    """Which frames of a video the model gets, and how they are scaled.

    Raises:
        InvalidRequest: a value is not allowed.
    """

    sampling: Annotated[
        Sampling,
        Argument(
            "how to select frames. 'uniform': spread over the whole video. 'clip': clips as long as those that the"
            " model was trained on, as in the published test protocols. 'keyframes': faster, not exact; the frames of"
            " 'uniform', each moved to the nearest key frame",
            partial(check_choice, choices=Sampling),
        ),
    ] = "uniform"
    views: Annotated[
        int | None,
        Argument(
            f"number of clips in time, spread over the video, 1 to {MAX_CLIPS}; more than 1 needs sampling 'clip'",
            partial(check_int, allowed=range(1, MAX_CLIPS + 1), described=f"a whole number from 1 to {MAX_CLIPS}"),
            metavar="N",
            default="1",
        ),
    ] = None
    crops: Annotated[
        int | None,
        Argument(
            "number of squares cut from each frame: 1 (the centre) or 3 (along the longer side)",
            partial(check_int, allowed=(1, 3), described="1 or 3"),
            metavar="1|3",
            default="1",
        ),
    ] = None
    start: Annotated[
        float | None,
        Argument(
            "use only the part of the video from this time on, in seconds from the first frame",
            _check_time,
            metavar="SECONDS",
        ),
    ] = None
    end: Annotated[
        float | None,
        Argument(
            "use only the part of the video up to this time, in seconds from the first frame",
            _check_time,
            metavar="SECONDS",
        ),
    ] = None
    quality: Annotated[
        Quality,
        Argument(
            "how to scale frames. 'fast': area averaging. 'reference': as PyTorchVideo scales and rounds. 'draft':"
            " faster, not exact; as 'fast', and each frame is moved to the nearest one that other frames depend on",
            partial(check_choice, choices=Quality),
        ),
    ] = "fast"

    def __post_init__(self) -> None:
        super().__post_init__()
        views, crops = self.views or 1, self.crops or 1
        if views > 1 and self.sampling != "clip":
            raise InvalidRequest(
                f"sampling {self.sampling!r} has one view, got views={views}: add sampling='clip' (--sampling clip)"
            )
        if views * crops > MAX_CLIPS:
            raise InvalidRequest(
                f"views x crops must be at most {MAX_CLIPS}, got {views} x {crops}: use fewer views or crops"
            )
        if self.end is not None and self.end <= (self.start or 0):
            raise InvalidRequest(f"end must be after start, got start={self.start!r}, end={self.end!r}")


@dataclass(frozen=True, kw_only=True)
class RequestOptions(SamplingOptions):
    """What one request asks the server about a video."""

    top_k: Annotated[
        int,
        Argument(
            "number of labels to return; a model with fewer classes returns all of them",
            check_positive_int,
            metavar="N",
        ),
    ] = 5
    features: Annotated[bool, Argument("also return the embedding, float32 [D]", check_bool)] = False
    report: Annotated[
        bool, Argument("also return the server's report: codec, size, frame times, milliseconds", check_bool)
    ] = False

    def settings(self) -> dict[str, Any]:
        """All that the answer depends on, by name."""
        return self.select(RequestOptions)

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
        Argument(
            "path of a video file, an address (http, https, or of a store, such as s3://bucket/key), its bytes, or a"
            " file opened with mode 'rb', which is read from its current position on"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    retry: Annotated[
        bool,
        Argument(
            "try again until the deadline while the server is busy, does not answer, or loads the model. Off by"
            " default, so that an error of a single call comes at once"
        ),
    ] = False
    timeout_seconds: Annotated[
        float | None,
        Argument("deadline of this call; None: the classifier's", check_timeout, metavar="SECONDS"),
    ] = None


@dataclass(frozen=True)
class RunArguments(RequestOptions):
    """The arguments of `classify_many`."""

    source: Annotated[
        Source,
        Argument(
            "a path, pattern, folder, http(s) address, CSV or JSON lines file, data frame, bytes, open file, or any"
            " iterable of these, which is read only as far as needed; see `read_entries`. Paths, patterns, folders and"
            " lists may be in a store, such as s3://bucket/videos"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    parallel: Annotated[int, Argument("number of requests in flight", check_positive_int, metavar="N")] = 5
    on_error: Annotated[
        OnError,
        Argument(
            "what happens to a video that fails. 'keep': it becomes a row with its error. 'raise': it ends the run."
            " 'drop': it is left out and counted. An unknown model or missing credentials always end the run",
            partial(check_choice, choices=OnError),
        ),
    ] = "keep"
    ordered: Annotated[bool, Argument("rows come in the order of the source; False: rows come as they finish")] = True
    progress: Annotated[
        bool | None,
        Argument(
            "show a progress bar on stderr or in the notebook; None: if stderr is a terminal, or if a run in a notebook"
            " takes longer than a second"
        ),
    ] = None
    retry_seconds: Annotated[
        float | None,
        Argument(
            "how long to wait for a server that is busy, does not answer, or loads the model; at least the deadline of"
            " a call. None: as long as the deadline, and only for a server that has answered before in this run",
            check_seconds,
            metavar="SECONDS",
        ),
    ] = None
    timeout_seconds: Annotated[
        float | None,
        Argument("deadline of each call; None: the classifier's", check_timeout, metavar="SECONDS"),
    ] = None


@dataclass(frozen=True)
class EmbedArguments(RunArguments):
    """The arguments of `embed`."""

    _: KW_ONLY
    top_k: Annotated[
        int, Argument("number of labels to return in addition to the vector", check_positive_int, metavar="N")
    ] = 1
    features: Annotated[bool, Argument("always on", lambda _name, _value: True)] = True
    on_error: Annotated[
        OnError,
        Argument(
            "as for `classify_many`; with 'keep' a failure also has a row, with NaN",
            partial(check_choice, choices=OnError),
        ),
    ] = "drop"

    def for_run(self) -> dict[str, Any]:
        """The arguments of `classify_many` that are not its defaults: a subclass of a classifier may change these."""
        parameters = read_parameters(RunArguments)
        return {name: value for name, value in vars(self).items() if value is not parameters[name].default}
