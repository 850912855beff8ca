"""Which frames of a timeline a request wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from clip_decode.geometry import Geometry
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Sampling, clip_moments, spread_indices


@dataclass(frozen=True)
class Selection:
    """Frame numbers wanted: for each geometry by name, for each view, exactly T of them."""

    indices: Mapping[str, tuple[tuple[int, ...], ...]]

    @property
    def wanted(self) -> frozenset[int]:
        """Every frame number that is used at all."""
        return frozenset(i for views in self.indices.values() for view in views for i in view)

    def seconds(self, timeline: Timeline) -> dict[str, tuple[tuple[float, ...], ...]]:
        """When the chosen frames are shown."""
        return {
            name: tuple(tuple(timeline.seconds(index) for index in view) for view in views)
            for name, views in self.indices.items()
        }


def select_frames(timeline: Timeline, geometries: Mapping[str, Geometry], sampling: Sampling) -> Selection:
    """Choose frames; a video shorter than a clip repeats frames, the last one above all.

    Raises:
        InvalidRequest: the span asked for begins after the video ends.
    """
    first, last = timeline.span(sampling.start_seconds, sampling.end_seconds)
    indices: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name, geometry in geometries.items():
        if sampling.policy == "uniform":
            chosen = first + spread_indices(last - first + 1, geometry.frames)
            indices[name] = (tuple(chosen.tolist()),)
            continue
        start = Fraction(sampling.start_seconds or 0)
        end = timeline.duration
        if sampling.end_seconds is not None:
            end = min(end, Fraction(sampling.end_seconds))
        indices[name] = tuple(
            tuple(min(max(timeline.shown_at(moment), first), last) for moment in view)
            for view in clip_moments(geometry, sampling.views, start, end)
        )
    return Selection(indices)
