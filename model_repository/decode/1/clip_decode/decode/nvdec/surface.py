"""Pixels as a hardware decoder gives them, put into frames as FFmpeg's decoders give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

Samples = npt.NDArray[Any]

# Sixteen bits hold ten from the top down.
_PADDING_BITS = 6


def surface_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the samples of a 4:2:0 picture: luma, then rows of blue and red chroma in turns."""
    return height + (height + 1) // 2, (width + 1) // 2 * 2


def fill_frame(frame: VideoFrame, surface: Samples) -> None:
    """Put the samples in place of the frame's own, which nothing else may hold.

    Args:
        frame: yuv420p, yuvj420p or yuv420p10.
        surface: NV12, uint8, or P010, uint16; see `surface_shape`.
    """
    for plane, samples in zip(frame.planes, _split(frame, surface), strict=True):
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
        for plane, samples in zip(frame.planes, _split(frame, surface), strict=True)
    )


def _split(frame: VideoFrame, surface: Samples) -> tuple[Samples, Samples, Samples]:
    height, width = frame.height, frame.width
    chroma = surface[height:]
    across = (width + 1) // 2
    return surface[:height, :width], chroma[:, 0::2][:, :across], chroma[:, 1::2][:, :across]


def _view(plane: VideoPlane, kind: Any) -> Samples:
    """The samples of a plane, without the padding of its rows."""
    samples = np.frombuffer(memoryview(plane), dtype=kind)
    return samples.reshape(-1, plane.line_size // samples.itemsize)[: plane.height, : plane.width]
