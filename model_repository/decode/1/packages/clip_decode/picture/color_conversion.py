"""Conversion to RGB by the matrix and the range that a frame states.

What a frame does not state is read as BT.601 and, except for the yuvj formats, limited range: the rule of swscale, and
so of every PyAV pipeline, whatever the size of the frame.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from clip_decode.picture import Pixels

# AVColorSpace values that swscale converts. The others (YCgCo, ICtCp, reserved ones) make it fail; they are read as
# unspecified, which is BT.601 in swscale.
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
_UNSPECIFIED = 2


def convert_frame(
    frame: VideoFrame,
    reformatter: VideoReformatter,
    width: int | None = None,
    height: int | None = None,
    interpolation: Interpolation = Interpolation.BILINEAR,
) -> Pixels:
    """A frame as RGB [H, W, 3]: the pixels that PyAV gives for "rgb24", in memory of their own."""
    _replace_unknown_colors(frame)
    converted = reformatter.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=interpolation, threads=1
    )
    return _read_plane(converted.planes[0], converted.height, converted.width * 3).reshape(
        converted.height, converted.width, 3
    )


def convert_planes(
    frame: VideoFrame, reformatter: VideoReformatter, width: int, height: int, interpolation: Interpolation
) -> tuple[Pixels, Pixels, Pixels]:
    """A frame scaled to `width` x `height`, as its red, green and blue planes [H, W]."""
    _replace_unknown_colors(frame)
    converted = reformatter.reformat(
        frame, width=width, height=height, format="gbrp", interpolation=interpolation, threads=1
    )
    green, blue, red = (_read_plane(plane, height, width) for plane in converted.planes)
    return red, green, blue


def _replace_unknown_colors(frame: VideoFrame) -> None:
    if frame.colorspace not in _KNOWN_MATRICES:
        frame.colorspace = _UNSPECIFIED
    if frame.color_range not in (1, 2):
        frame.color_range = 0


def _read_plane(plane: VideoPlane, rows: int, row_bytes: int) -> Pixels:
    """uint8 [rows, row_bytes] without the padding; a view."""
    padded = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, abs(plane.line_size))
    return padded[:rows, :row_bytes]
