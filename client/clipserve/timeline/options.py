"""The options of timelines.

RequestOptions                  as for `classify`
└── TimelineOptions             + the windows: all that the answers depend on
    ├── TimelineArguments       + video, first_window, ...: the arguments of `timeline`
    └── TimelineRunArguments    + source, parallel, ...: the arguments of `timeline_many`
"""

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Annotated, Any

from clipserve.arguments import Argument
from clipserve.checks import (
    check_choice,
    check_int,
    check_positive_int,
    check_seconds,
    check_timeout,
    read_float,
)
from clipserve.errors import InvalidRequest
from clipserve.options import OnError, RequestOptions
from clipserve.sources.source import Source
from clipserve.sources.videos import VideoSource

# The server's limits for the length of a window and for the step: see docs/contract.md.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 86_400.0
# And for the number of a window.
MAX_WINDOW = 2**31 - 1


def check_span(name: str, value: object) -> float:
    """Accept the length of a window, or a step."""
    if (seconds := read_float(value)) is None or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise InvalidRequest(
            f"{name} must be a number of seconds from {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:,.0f}, got {value!r}"
        )
    return seconds


@dataclass(frozen=True, kw_only=True)
class TimelineOptions(RequestOptions):
    """The windows of a video, and the options of each."""

    window: Annotated[float, Argument("length of a window in seconds", check_span, metavar="SECONDS")] = 2.0
    step: Annotated[
        float,
        Argument(
            "seconds from the start of a window to the start of the next. Windows overlap if it is shorter than the"
            " window. If it is longer, there are gaps",
            check_span,
            metavar="SECONDS",
        ),
    ] = 1.0

    def settings(self) -> dict[str, Any]:
        """All that the answers depend on, by name."""
        return self.select(TimelineOptions)

    def parameters(self) -> dict[str, str | int | float]:
        """Request parameters of the model `timeline`."""
        return super().parameters() | {
            "window_seconds": self.window,
            "step_seconds": self.step,
            "top_k": self.top_k,
            "features": self.features,
        }


_retry_seconds = Argument(
    "how long to wait, each time, for a server that is busy, does not answer, or loads the model; at least"
    " `timeout_seconds`. Then the timeline continues with the next missing window. None: as long as `timeout_seconds`,"
    " and only for a server that has answered before",
    check_seconds,
    metavar="SECONDS",
)
_timeout_seconds = Argument(
    "how long the server may be silent; while it works on a window, it sends a message each second. None: the"
    " classifier's deadline of a call. The first answer may take a second longer for each MB of the video",
    check_timeout,
    metavar="SECONDS",
)
_progress = Argument(
    "show a progress bar, in seconds of video, on stderr or in the notebook; None: if stderr is a terminal"
)


@dataclass(frozen=True)
class TimelineArguments(TimelineOptions):
    """The arguments of `timeline`."""

    video: Annotated[
        VideoSource,
        Argument(
            "path of a video file, an http(s) address, its bytes, or a file opened with mode 'rb', which is read from"
            " its current position on"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    first_window: Annotated[
        int,
        Argument(
            "number of the first window to return; the server neither decodes nor sends those before it",
            partial(check_int, allowed=range(MAX_WINDOW + 1), described=f"a whole number from 0 to {MAX_WINDOW:,}"),
            metavar="N",
        ),
    ] = 0
    progress: Annotated[bool | None, _progress] = None
    retry_seconds: Annotated[float | None, _retry_seconds] = None
    timeout_seconds: Annotated[float | None, _timeout_seconds] = None


@dataclass(frozen=True)
class TimelineRunArguments(TimelineOptions):
    """The arguments of `timeline_many`."""

    source: Annotated[Source, Argument("as for `classify_many`")] = field(repr=False)
    _: KW_ONLY
    parallel: Annotated[
        int,
        Argument(
            "number of videos at a time. The server refuses more timelines than its limit, and the client then waits",
            check_positive_int,
            metavar="N",
        ),
    ] = 2
    on_error: Annotated[
        OnError,
        Argument(
            "what happens to a video that fails. 'keep': a row with its error follows its windows. 'raise': it ends the"
            " run. 'drop': it is only counted. An unknown model or missing credentials always end the run",
            partial(check_choice, choices=OnError),
        ),
    ] = "keep"
    progress: Annotated[bool | None, _progress] = None
    retry_seconds: Annotated[float | None, _retry_seconds] = None
    timeout_seconds: Annotated[float | None, _timeout_seconds] = None
