"""Copying the surfaces of a hardware decoder into frames as FFmpeg's decoders return them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

Samples = npt.NDArray[Any]

# P010 has ten bits at the top of sixteen.
_PADDING_BITS = 6


def surface_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the samples of a 4:2:0 frame: luma, then rows of alternating blue and red chroma."""
    return height + (height + 1) // 2, (width + 1) // 2 * 2


def fill_frame(frame: VideoFrame, surface: Samples) -> None:
    """Replace the samples of a frame, which must be writable.

    Args:
        frame: yuv420p, yuvj420p or yuv420p10.
        surface: NV12, uint8, or P010, uint16; see `surface_shape`.
    """
    for plane, samples in zip(frame.planes, _split_planes(frame, surface), strict=True):
        target = _view(plane, surface.dtype)
        if surface.dtype == np.uint16:
            np.right_shift(samples, _PADDING_BITS, out=target)
        else:
            target[:] = samples


def equals_frame(frame: VideoFrame, surface: Samples) -> bool:
    """Whether the frame has these samples."""
    shift = _PADDING_BITS if surface.dtype == np.uint16 else 0
    return all(
        np.array_equal(_view(plane, surface.dtype), samples >> shift if shift else samples)
        for plane, samples in zip(frame.planes, _split_planes(frame, surface), strict=True)
    )


def _split_planes(frame: VideoFrame, surface: Samples) -> tuple[Samples, Samples, Samples]:
    height, width = frame.height, frame.width
    chroma = surface[height:]
    chroma_width = (width + 1) // 2
    return surface[:height, :width], chroma[:, 0::2][:, :chroma_width], chroma[:, 1::2][:, :chroma_width]


def _view(plane: VideoPlane, dtype: Any) -> Samples:
    """The samples of a plane, without the padding of its rows."""
    samples = np.frombuffer(memoryview(plane), dtype=dtype)
    return samples.reshape(-1, plane.line_size // samples.itemsize)[: plane.height, : plane.width]
