"""Cutting a frame down, before it is scaled, to what its squares are made of.

A square of a 16:9 picture has little more than half of its columns. Scaling starts anew at the edge
of the part cut out, so the edge must fall on whole pixels before and after: then every pixel of the
square has the same neighbours with the same weights as in the whole picture (but for the last bit
of swscale's 16-bit steps: one level of 255, in one pixel of a thousand).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

# How far, in source pixels, the weights of one pixel reach: its chroma neighbours, upsampled.
_REACH = 8


@dataclass(frozen=True)
class Strip:
    """Part of one axis, in pixels: from `source_start` on before scaling, `start` on after it."""

    source_start: int
    source_length: int
    start: int
    length: int


def find_strip(source: int, target: int, starts: Sequence[int], side: int, grain: int) -> Strip:
    """The shortest part of an axis, `source` pixels scaled to `target`, that squares can be cut from.

    Args:
        source, target: length of the axis before and after scaling.
        starts: where the squares begin, after scaling.
        side: of the squares, after scaling.
        grain: source pixels a sample of chroma.
    """
    if source % grain:
        return Strip(0, source, 0, target)  # The last sample of chroma is stretched: no part scales alike.
    common = gcd(source // grain, target)
    step, source_step = target // common, source // common
    margin = 2 + -(-_REACH * target // source)
    first = max(min(starts) - margin, 0) // step
    last = -(-(max(starts) + side + margin) // step)
    if last * step >= target:  # To the very end, which need not fall on a step.
        return Strip(first * source_step, source - first * source_step, first * step, target - first * step)
    return Strip(first * source_step, (last - first) * source_step, first * step, (last - first) * step)


def find_grain(frame: VideoFrame) -> tuple[int, int]:
    """Pixels a sample of chroma, across and down; the whole size where bits are packed, which no pointer can cut."""
    if frame.format.is_bit_stream:
        return frame.width + 1, frame.height + 1
    return 64 // frame.format.chroma_width(64), 64 // frame.format.chroma_height(64)


class Cutter:
    """Cuts strips out of frames by moving FFmpeg's pointers: no pixel is copied."""

    def __init__(self) -> None:
        self._ends: dict[tuple[object, ...], tuple[FilterContext, FilterContext]] = {}

    def cut(self, frame: VideoFrame, across: Strip, down: Strip) -> VideoFrame:
        """The part of a frame that is in both strips; the frame itself if that is all of it."""
        if (across.source_length, down.source_length) == (frame.width, frame.height):
            return frame
        key = (frame.width, frame.height, frame.format.name, across, down)
        if key not in self._ends:
            self._ends = {key: self._build(frame, across, down)}
        source, sink = self._ends[key]
        source.push(frame)
        part = sink.pull()
        assert isinstance(part, VideoFrame)
        return part

    def _build(self, frame: VideoFrame, across: Strip, down: Strip) -> tuple[FilterContext, FilterContext]:
        self._graph = Graph()  # Its filters live as long as it does.
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1)
        )
        place = f"{across.source_length}:{down.source_length}:{across.source_start}:{down.source_start}"
        crop = self._graph.add("crop", f"{place}:exact=1")
        sink = self._graph.add("buffersink")
        source.link_to(crop)
        crop.link_to(sink)
        self._graph.configure()
        return source, sink
