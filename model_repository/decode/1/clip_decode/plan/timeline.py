"""When each frame of a video is shown."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import floor

from clip_decode.demux.packets import Track
from clip_decode.errors import InvalidRequest, TooLong, Truncated
from clip_decode.limits import Limits

# A last frame said to last longer than this is a lie of the header.
_LONGEST_LAST_SECONDS = 10


@dataclass(frozen=True)
class Timeline:
    """Frames in the order they are shown.

    Attributes:
        ticks: when each frame is shown, in units of `time_base`, the first at 0, never falling.
        end: when the last frame ends.
        time_base: seconds a unit.
    """

    ticks: Sequence[int]
    end: int
    time_base: Fraction

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.ticks)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame to the end of the last."""
        return self.end * self.time_base

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 for a single frame."""
        seconds = self.ticks[-1] * self.time_base
        return float((self.frames - 1) / seconds) if seconds else 0.0

    def seconds(self, index: int) -> float:
        """When a frame is shown, counted from the first."""
        return float(self.ticks[index] * self.time_base)

    def shown_at(self, moment: Fraction) -> int:
        """Number of the frame on screen at `moment` seconds: the last that began by then.

        The moment is rounded to the clock of the file first: Matroska counts milliseconds, so the
        frame due at 66.67 ms is stamped 67 and is still the one meant.
        """
        return max(bisect_right(self.ticks, self._tick(moment)) - 1, 0)

    def span(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        """First and last frame number of a span of seconds.

        Raises:
            InvalidRequest: the span begins after the video ends.
        """
        first, last = 0, self.frames - 1
        if start_seconds is not None and start_seconds > 0:
            if start_seconds >= self.duration:
                raise InvalidRequest(
                    f"start_seconds is {start_seconds}, but the video ends at {float(self.duration):.3f} seconds"
                )
            first = self.shown_at(Fraction(start_seconds))
        if end_seconds is not None:
            last = bisect_left(self.ticks, self._tick(Fraction(end_seconds))) - 1
        return first, max(first, min(last, self.frames - 1))

    def _tick(self, moment: Fraction) -> int:
        return floor(moment / self.time_base + Fraction(1, 2))


def build_timeline(
    pts: Sequence[int | None],
    *,
    last_duration: int,
    time_base: Fraction,
    rate: Fraction,
    limits: Limits,
) -> Timeline:
    """Make a timeline from the timestamps of frames in the order they are shown.

    Where a timestamp is missing or goes backwards (raw streams, AVI, a clock that was reset),
    frames are taken to be 1 / `rate` seconds apart.

    Raises:
        TooLong: more seconds than the limits allow.
    """
    by_rate = Timeline(range(len(pts)), len(pts), 1 / rate)
    known = [value for value in pts if value is not None]
    falls = any(later < earlier for earlier, later in pairwise(known))
    if len(known) < len(pts) or falls or (len(known) > 1 and known[0] == known[-1]):
        timeline = by_rate
    else:
        ticks = [value - known[0] for value in known]
        if not 0 < last_duration * time_base <= _LONGEST_LAST_SECONDS:
            last_duration = max(floor(1 / rate / time_base), 1)
        timeline = Timeline(ticks, ticks[-1] + last_duration, time_base)
    if timeline.duration > limits.max_seconds >= by_rate.duration:
        timeline = by_rate  # One damaged timestamp, days away; what there is to do is bounded.
    if timeline.duration > limits.max_seconds:
        raise TooLong(f"the video lasts {float(timeline.duration):.0f} seconds, but {limits.max_seconds} are allowed")
    return timeline


def predict_order(track: Track) -> list[int]:
    """The order in which packets promise to be shown: by timestamp, if all have one.

    Packets that an edit list discards are not shown.

    Raises:
        Truncated: there is no packet that is to be shown.
    """
    shown = [number for number, packet in enumerate(track.packets) if not packet.is_discard]
    if not shown:
        raise Truncated("the container is known, but it holds not one whole frame")
    stamps = {number: track.pts[number] for number in shown}
    if None in stamps.values():
        return shown
    return sorted(shown, key=lambda number: (stamps[number], number))
