"""When each frame of a video is displayed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import floor

from clip_decode.demux.packets import PacketIndex
from clip_decode.errors import InvalidRequest, TooLong
from clip_decode.limits import Limits

# A header that states a longer last frame is not believed.
_MAX_LAST_FRAME_SECONDS = 10
# How far a floating-point number, such as 0.12, may be from the moment that it means.
_FLOAT_SECONDS = Fraction(1, 10**6)


@dataclass(frozen=True)
class Timeline:
    """Frames in display order.

    Attributes:
        ticks: start of each frame in units of `time_base`; the first is 0, and none is less than the one before.
        end: end of the last frame.
        time_base: seconds a unit.
    """

    ticks: Sequence[int]
    end: int
    time_base: Fraction

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.ticks)

    @property
    def duration(self) -> Fraction:
        """Seconds from the start of the first frame to the end of the last."""
        return self.end * self.time_base

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 for a single frame."""
        seconds = self.ticks[-1] * self.time_base
        return float((self.frames - 1) / seconds) if seconds else 0.0

    def seconds(self, index: int) -> float:
        """Start of a frame, counted from the first frame."""
        return float(self.ticks[index] * self.time_base)

    def frame_at(self, seconds: Fraction) -> int:
        """Index of the frame on screen: the last that has begun.

        The moment is rounded to the clock of the file first: Matroska counts milliseconds, so the frame of 66.67 ms has
        the timestamp 67 and is still the one that is meant.
        """
        return max(bisect_right(self.ticks, self._on_clock(seconds)) - 1, 0)

    def frames_between(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        """First and last index of the frames on screen in a span.

        Raises:
            InvalidRequest: the span begins after the video ends.
        """
        first, last = 0, self.frames - 1
        if start_seconds is not None and start_seconds > 0:
            if start_seconds >= self.duration:
                raise InvalidRequest(
                    f"start_seconds is {start_seconds}, but the video ends at {float(self.duration):.3f} seconds"
                )
            first = self.frame_at(Fraction(start_seconds))
        if end_seconds is not None:
            last = bisect_left(self.ticks, self._on_clock(Fraction(end_seconds))) - 1
        return first, max(first, min(last, self.frames - 1))

    def _on_clock(self, seconds: Fraction) -> Fraction | int:
        ticks = seconds / self.time_base
        nearest = floor(ticks + Fraction(1, 2))
        # A clock that counts frames, as that of AVI, is exact: to round would make the second half of a frame the next.
        counts_frames = self.ticks[-1] < 2 * (self.frames - 1)
        is_meant = abs(ticks - nearest) * self.time_base <= _FLOAT_SECONDS
        return ticks if counts_frames and not is_meant else nearest


def build_timeline(index: PacketIndex, order: Sequence[int | None], limits: Limits) -> Timeline:
    """The timeline of the frames of these packets.

    Args:
        index: the packets.
        order: for each frame in display order, the number of its packet; None where that is unknown.
        limits: bounds of the video.

    Raises:
        TooLong: more seconds than the limits allow.
    """
    last = order[-1]
    return timeline_from_timestamps(
        [None if number is None else index.pts[number] for number in order],
        last_duration=0 if last is None else index.durations[last],
        time_base=index.time_base,
        frame_rate=index.frame_rate,
        limits=limits,
    )


def timeline_from_timestamps(
    pts: Sequence[int | None],
    *,
    last_duration: int,
    time_base: Fraction,
    frame_rate: Fraction,
    limits: Limits,
) -> Timeline:
    """The timeline of frames with these timestamps, in display order.

    Where a timestamp is missing or goes backwards (raw streams, AVI, a clock that was reset), frames are taken to be
    1 / `frame_rate` seconds apart; or at the mean rate of the timestamps that there are, where these contradict it.

    Raises:
        TooLong: more seconds than the limits allow.
    """
    by_rate = Timeline(range(len(pts)), len(pts), 1 / frame_rate)
    places = [place for place, value in enumerate(pts) if value is not None]
    known = [value for value in pts if value is not None]
    goes_backwards = any(later < earlier for earlier, later in pairwise(known))
    if not known or goes_backwards or (len(pts) > 1 and known[0] == known[-1]):
        timeline = by_rate
    elif len(known) < len(pts):
        # FFmpeg guesses the rate of the timestamps that are stated, and MPEG-TS need not state one for every frame.
        seconds_a_frame = (known[-1] - known[0]) * time_base / (places[-1] - places[0])
        is_contradicted = not Fraction(2, 3) < seconds_a_frame * frame_rate < Fraction(3, 2)
        timeline = Timeline(range(len(pts)), len(pts), seconds_a_frame) if is_contradicted else by_rate
    else:
        ticks = [value - known[0] for value in known]
        if not 0 < last_duration * time_base <= _MAX_LAST_FRAME_SECONDS:
            last_duration = max(floor(1 / frame_rate / time_base), 1)
        timeline = Timeline(ticks, ticks[-1] + last_duration, time_base)
    if timeline.duration > limits.max_seconds >= by_rate.duration:
        timeline = by_rate  # One damaged timestamp, days away; the number of frames bounds the work.
    if timeline.duration > limits.max_seconds:
        raise TooLong(f"the video lasts {float(timeline.duration):.0f} seconds, but {limits.max_seconds} are allowed")
    return timeline
