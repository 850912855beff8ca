"""Windows over a video: spans of one length, one step apart.

Window i begins at start + i x step and ends `window` seconds later, or where the video ends. The last window is the
last that begins before the end, by a microsecond or more. A video that is not longer than a window is one window. Start
and end are those of the sampling; without them, those of the video. Times are rounded once, to the nearest float of the
decimal numbers given: the third window of 0.1 s begins at 0.2, and the fourth at 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clip_decode.errors import InvalidRequest
from clip_decode.report import VideoFacts
from clip_decode.sampling import Policy, Quality

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# A hundredth of a second is less than a frame of every usual video.
MIN_SECONDS, MAX_SECONDS = 0.01, 86_400.0


@dataclass(frozen=True)
class Windows:
    """Which windows of a video are wanted.

    Attributes:
        window_seconds: length of a window, 0.01 to 86,400.
        step_seconds: from the start of one window to the start of the next, in the same bounds. It may be longer than
            a window.
        first_window: number of the first window that is wanted, from 0.

    Raises:
        InvalidRequest: a value has the wrong type or is out of bounds.
    """

    window_seconds: float
    step_seconds: float
    first_window: int = 0

    def __post_init__(self) -> None:
        for name in ("window_seconds", "step_seconds"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            # NaN fails this comparison, too.
            if not is_number or not MIN_SECONDS <= value <= MAX_SECONDS:
                raise InvalidRequest(f"{name} is {value!r:.40}, but {MIN_SECONDS} to {MAX_SECONDS:.0f} is allowed")
        first = self.first_window
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            raise InvalidRequest(f"first_window is {first!r:.40}, but a whole number from 0 is needed")


@dataclass(frozen=True, slots=True)
class Span:
    """Number, start and end in seconds of a window."""

    number: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class WindowLimits:
    """Upper bounds for the windows of one video.

    Attributes:
        max_windows: number of windows.
        max_megabytes: MiB of converted frames that windows share: those of all windows that overlap at one moment.
    """

    max_windows: int = 100_000
    max_megabytes: int = 1024


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """A window and its frames.

    Attributes:
        span: its start and end.
        first_frame, end_frame: the frames on screen in it are first_frame up to and not including end_frame.
        frame_numbers: of the frames in its clips, int32 [views, T].
        policy, quality: see `Report`.
    """

    span: Span
    first_frame: int
    end_frame: int
    frame_numbers: npt.NDArray[np.int32]
    policy: Policy
    quality: Quality


@dataclass(frozen=True)
class WindowClips:
    """The clips of a window.

    Attributes:
        window: the window.
        clips: uint8 [V, T, S, S, 3], those that `decode_clips` gives for the span of the window.
        method: "selected" or "whole", see `Report`.
        video: facts about the video.
    """

    window: PlannedWindow
    clips: npt.NDArray[np.uint8]
    method: Literal["selected", "whole"]
    video: WindowedVideo


@dataclass(frozen=True)
class WindowedVideo(VideoFacts):
    """Facts about a video that is decoded window by window.

    Attributes:
        windows: number of windows of the video, those before the first one wanted included.
        truncated: whether bytes are missing or damaged, as far as known when the window was decoded.
        decoded_frames: number of frames decoded so far.
    """

    windows: int
    truncated: bool
    decoded_frames: int
