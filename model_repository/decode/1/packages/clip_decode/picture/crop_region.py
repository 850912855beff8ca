"""Cropping a frame before it is scaled, to the region that the crops are cut from.

A square of a 16:9 frame uses little more than half of its columns. Scaling starts anew at the edge of the region, so
the edge must be a whole pixel before and after scaling. Then every pixel of the crop has the same neighbours with the
same weights as in the whole frame. What remains is the last bit of swscale's 16-bit steps: one level of 255, in one
pixel of a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

# How many source pixels the weights of one pixel reach: its chroma neighbours, upsampled.
_REACH = 8


@dataclass(frozen=True)
class CropRange:
    """The crop region along one axis, in pixels before scaling (source) and after it."""

    source_start: int
    source_length: int
    start: int
    length: int


def find_crop_range(source: int, target: int, starts: Sequence[int], side: int, chroma_step: int) -> CropRange:
    """The shortest range of an axis that the crops can be cut from.

    Args:
        source, target: length of the axis before and after scaling.
        starts: start of each crop, after scaling.
        side: length of the crops, after scaling.
        chroma_step: source pixels a chroma sample.
    """
    if source % chroma_step:
        return CropRange(0, source, 0, target)  # The last chroma sample is stretched: no part scales like the whole.
    common = gcd(source // chroma_step, target)
    step, source_step = target // common, source // common
    margin = 2 + -(-_REACH * target // source)
    first = max(min(starts) - margin, 0) // step
    last = -(-(max(starts) + side + margin) // step)
    if last * step >= target:  # To the end of the axis, which need not be a multiple of the step.
        return CropRange(first * source_step, source - first * source_step, first * step, target - first * step)
    return CropRange(first * source_step, (last - first) * source_step, first * step, (last - first) * step)


def chroma_steps(frame: VideoFrame) -> tuple[int, int]:
    """Pixels a chroma sample, horizontally and vertically.

    For a packed bit stream more than the size of the frame: no pointer can crop it.
    """
    if frame.format.is_bit_stream:
        return frame.width + 1, frame.height + 1
    return 64 // frame.format.chroma_width(64), 64 // frame.format.chroma_height(64)


class FrameCropper:
    """Crops frames by moving FFmpeg's pointers: no pixel is copied. Keeps the filter graph of the last size."""

    def __init__(self) -> None:
        self._ends: dict[tuple[object, ...], tuple[FilterContext, FilterContext]] = {}

    def crop(self, frame: VideoFrame, columns: CropRange, rows: CropRange) -> VideoFrame:
        """The region of a frame; the frame itself if the region is the whole frame."""
        if (columns.source_length, rows.source_length) == (frame.width, frame.height):
            return frame
        key = (frame.width, frame.height, frame.format.name, columns, rows)
        if key not in self._ends:
            self._ends = {key: self._build(frame, columns, rows)}
        source, sink = self._ends[key]
        source.push(frame)
        region = sink.pull()
        assert isinstance(region, VideoFrame)
        return region

    def _build(self, frame: VideoFrame, columns: CropRange, rows: CropRange) -> tuple[FilterContext, FilterContext]:
        self._graph = Graph()  # The filters live as long as their graph.
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1)
        )
        region = f"{columns.source_length}:{rows.source_length}:{columns.source_start}:{rows.source_start}"
        crop = self._graph.add("crop", f"{region}:exact=1")
        sink = self._graph.add("buffersink")
        source.link_to(crop)
        crop.link_to(sink)
        self._graph.configure()
        return source, sink
