"""Decode the bytes of a video file to uint8 clips: exact frames, little work, no other file opened.

    from clip_decode import Geometry, decode_clips

    clip, report = decode_clips(data, Geometry(frames=16, stride=5, short_side=256, crop=224))

`decode_clips` and `decode_windows` load FFmpeg at their first use. The other names need only the standard library, so a
process that must not load FFmpeg can import them.
"""

from typing import TYPE_CHECKING

from clip_decode.errors import (
    Busy,
    Crashed,
    DecodeError,
    Encrypted,
    Failed,
    InvalidRequest,
    NotAVideo,
    NoVideoStream,
    OutOfMemory,
    TimedOut,
    TooLarge,
    TooLong,
    Truncated,
    UnsupportedCodec,
    VideoError,
    WorkerError,
)
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.report import Report, VideoFacts
from clip_decode.sampling import Sampling
from clip_decode.windows import PlannedWindow, Span, WindowClips, WindowedVideo, WindowLimits, Windows

if TYPE_CHECKING:
    from clip_decode.engine import decode_clips
    from clip_decode.window_engine import decode_windows
else:

    def __getattr__(name: str) -> object:
        if name == "decode_clips":
            from clip_decode.engine import decode_clips

            return decode_clips
        if name == "decode_windows":
            from clip_decode.window_engine import decode_windows

            return decode_windows
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return __all__


__all__ = [
    "Busy",
    "Crashed",
    "DecodeError",
    "Encrypted",
    "Failed",
    "Geometry",
    "InvalidRequest",
    "Limits",
    "NoVideoStream",
    "NotAVideo",
    "OutOfMemory",
    "PlannedWindow",
    "Report",
    "Sampling",
    "Span",
    "TimedOut",
    "TooLarge",
    "TooLong",
    "Truncated",
    "UnsupportedCodec",
    "VideoError",
    "VideoFacts",
    "WindowClips",
    "WindowLimits",
    "WindowedVideo",
    "Windows",
    "WorkerError",
    "decode_clips",
    "decode_windows",
]
