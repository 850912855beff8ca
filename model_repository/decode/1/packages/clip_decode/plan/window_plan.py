"""The windows of a timeline, and the frames of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from clip_decode.errors import InvalidRequest
from clip_decode.geometry import CLIP, Geometry
from clip_decode.plan.frame_selection import FrameSelection, select_frames
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Sampling
from clip_decode.windows import PlannedWindow, Span, WindowLimits, Windows

Move = Callable[[FrameSelection, Sampling], FrameSelection]
# A last window that is shorter comes from rounding: a step of 1/3 s has 16 digits. It is less than a tick of the usual
# clocks of videos, 1/90,000 s.
_SHORTEST_WINDOW = Fraction(1, 1_000_000)


def count_windows(windows: Windows, timeline: Timeline, sampling: Sampling, limits: WindowLimits) -> int:
    """How many windows a video has, those before the first one wanted included.

    Raises:
        InvalidRequest: more than allowed, or the sampling begins after the video ends.
    """
    timeline.frames_between(sampling.start_seconds, sampling.end_seconds)  # Checks the start.
    start, step, end = _decimal(sampling.start_seconds or 0), _decimal(windows.step_seconds), _end(timeline, sampling)
    total = 1 if end - start <= _decimal(windows.window_seconds) else math.ceil((end - start) / step)
    if total > limits.max_windows:
        raise InvalidRequest(
            f"a window every {windows.step_seconds:g} s makes {total} windows of this video, but {limits.max_windows}"
            " are allowed; choose a larger step_seconds, or a part of the video"
        )
    while total > 1 and end - (start + step * (total - 1)) < _SHORTEST_WINDOW:
        total -= 1
    return total


def list_spans(windows: Windows, timeline: Timeline, sampling: Sampling, total: int) -> list[Span]:
    """Every window from the first one wanted on. total: what `count_windows` returned."""
    start, step, length = (
        _decimal(seconds) for seconds in (sampling.start_seconds or 0, windows.step_seconds, windows.window_seconds)
    )
    end = float(_end(timeline, sampling))
    return [
        Span(number, float(start + step * number), min(float(start + step * number + length), end))
        for number in range(windows.first_window, total)
    ]


def plan_windows(
    spans: Sequence[Span],
    timeline: Timeline,
    geometry: Geometry,
    sampling: Sampling,
    move: Move | None = None,
    *,
    tick: Callable[[], None] = lambda: None,
) -> list[PlannedWindow]:
    """The frames of each window: those that `decode_clips` selects for its start and end.

    Spans that begin after the video ends are left out.

    move: takes the shortcuts that the sampling allows.
    tick: called for each window. With ten views a window takes a millisecond, and a video may have 100,000 of them.
    """
    planned = []
    for span in spans:
        tick()
        if span.start_seconds >= timeline.duration:
            break
        within = replace(sampling, start_seconds=span.start_seconds, end_seconds=span.end_seconds)
        selection = select_frames(timeline, {CLIP: geometry}, within)
        if move is not None:
            selection = move(selection, within)
        first, last = timeline.frames_between(span.start_seconds, span.end_seconds)
        numbers = np.array(selection.indices[CLIP], np.int32)
        planned.append(PlannedWindow(span, first, last + 1, numbers, selection.policy, selection.quality))
    return planned


def count_shared(windows: Sequence[PlannedWindow], frames: int) -> int:
    """The largest number of frames that are kept at one moment, by what all windows together use."""
    used = np.zeros(frames + 1, np.int64)
    for window in windows:
        used[window.frame_numbers + 1] = 1
    before = np.cumsum(used)
    return max((int(before[window.end_frame] - before[window.first_frame]) for window in windows), default=0)


def _end(timeline: Timeline, sampling: Sampling) -> Fraction:
    if sampling.end_seconds is None:
        return timeline.duration
    return min(timeline.duration, _decimal(sampling.end_seconds))


def _decimal(seconds: float) -> Fraction:
    """The decimal number that a float was written as."""
    return Fraction(repr(float(seconds)))
