"""Which frames of a timeline a request selects: the arithmetic of the policies "uniform" and "clip"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt

from clip_decode.geometry import STRIDE_FRAMES_PER_SECOND, Geometry
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Policy, Quality, Sampling


@dataclass(frozen=True)
class FrameSelection:
    """The selected frames.

    Attributes:
        indices: for each geometry by name, for each temporal view, T frame indices in display order.
        policy, quality: those of the request, but "uniform" and "fast" where the frames are exact although the request
            allows a shortcut.
    """

    indices: Mapping[str, tuple[tuple[int, ...], ...]]
    policy: Policy
    quality: Quality

    @property
    def wanted(self) -> frozenset[int]:
        """Every frame index that is used."""
        return frozenset(i for views in self.indices.values() for view in views for i in view)

    def map_views(self, change: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> FrameSelection:
        """A selection with other indices: `change` takes and returns those of a view."""
        return replace(
            self,
            indices={
                name: tuple(tuple(change(np.array(view, dtype=np.int64)).tolist()) for view in views)
                for name, views in self.indices.items()
            },
        )

    def seconds(self, timeline: Timeline) -> dict[str, tuple[tuple[float, ...], ...]]:
        """Start of each selected frame, in the layout of `indices`."""
        return {
            name: tuple(tuple(timeline.seconds(index) for index in view) for view in views)
            for name, views in self.indices.items()
        }


def select_frames(timeline: Timeline, geometries: Mapping[str, Geometry], sampling: Sampling) -> FrameSelection:
    """Select the exact frames. In a video that is shorter than a clip, frames repeat, mostly the last one.

    The policy "keyframes" selects as "uniform" does; plan/shortcuts.py moves the frames.

    Raises:
        InvalidRequest: the span of `sampling` begins after the video ends.
    """
    first, last = timeline.frames_between(sampling.start_seconds, sampling.end_seconds)
    indices: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, geometry in geometries.items():
        if sampling.policy != "clip":
            selected = first + spread_indices(last - first + 1, geometry.frames)
            indices[name] = (tuple(selected.tolist()),)
            continue
        start = Fraction(sampling.start_seconds or 0)
        end = timeline.duration
        if sampling.end_seconds is not None:
            end = min(end, Fraction(sampling.end_seconds))
        indices[name] = tuple(
            tuple(min(max(timeline.frame_at(moment), first), last) for moment in view)
            for view in clip_moments(geometry, sampling.views, start, end)
        )
    return FrameSelection(
        indices,
        policy="uniform" if sampling.policy == "keyframes" else sampling.policy,
        quality="fast" if sampling.quality == "draft" else sampling.quality,
    )


def spread_indices(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """`wanted` frame indices from 0 to count - 1, equal to PyTorchVideo's, rounding included.

    `torch.linspace` counts in float32 from both ends towards the middle, and the result is truncated, not rounded;
    np.linspace differs from it for about one count in twenty.
    """
    if wanted == 1:
        return np.zeros(1, dtype=np.int64)
    last = np.float32(count - 1)
    step = last / np.float32(wanted - 1)
    number = np.arange(wanted)
    from_start = step * number.astype(np.float32)
    from_end = last - step * (wanted - 1 - number).astype(np.float32)
    values = np.where(number < wanted // 2, from_start, from_end)
    return cast("npt.NDArray[np.int64]", np.clip(values, 0, last).astype(np.int64))


def clip_moments(geometry: Geometry, views: int, start: Fraction, end: Fraction) -> list[list[Fraction]]:
    """For each view, the T moments in seconds at which its frames are taken.

    Moments may lie after `end` where the video is shorter than a clip; the last frame is used for them.
    """
    clip_seconds = Fraction(geometry.clip_thirtieths, STRIDE_FRAMES_PER_SECOND)
    room = max(end - start - clip_seconds, Fraction(0))
    step = Fraction(geometry.stride, STRIDE_FRAMES_PER_SECOND)
    starts = [start + room * view / max(views - 1, 1) for view in range(views)]
    return [[begin + step * number for number in range(geometry.frames)] for begin in starts]
