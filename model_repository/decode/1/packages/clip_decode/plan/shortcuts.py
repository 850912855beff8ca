"""Shortcuts that a request may allow: selected frames are moved to frames that take less decoding.

Frames stay within the span of the request. Distances are counted in frames.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clip_decode.dependencies.packet_dependencies import Dependencies
from clip_decode.plan.frame_selection import FrameSelection
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Sampling

Indices = npt.NDArray[np.int64]


class Shortcuts:
    """The shortcuts that there are in one video.

    Args:
        timeline: of all frames.
        dependencies: between their packets, with the display order.
    """

    def __init__(self, timeline: Timeline, dependencies: Dependencies) -> None:
        self._timeline, self._dependencies = timeline, dependencies

    def take(self, selection: FrameSelection, sampling: Sampling) -> FrameSelection:
        """Move the frames of an exact selection as the policy "keyframes" and the quality "draft" allow.

        Args:
            selection: the exact frames.
            sampling: of the request.

        Returns:
            The moved selection. The exact one where the span has too few key frames for the largest clip, or no frame
            that others depend on.
        """
        first, last = self._timeline.frames_between(sampling.start_seconds, sampling.end_seconds)
        if sampling.policy == "keyframes":
            selection = _move_to_key_frames(selection, _between(self.key_frames, first, last))
        if sampling.quality == "draft":
            selection = _move_to_references(selection, _between(self.references, first, last))
        return selection

    @cached_property
    def key_frames(self) -> Indices:
        """Indices in display order of the frames at which decoding may begin."""
        packets = self._dependencies.packets
        order = self._dependencies.display_order
        return np.array([index for index, number in enumerate(order) if packets[number].random_access], dtype=np.int64)

    @cached_property
    def references(self) -> Indices:
        """Indices in display order of the frames that others depend on, and of all key frames."""
        packets, frames = self._dependencies.packets, self._dependencies.frames
        if frames is None:
            kept = {number for number, packet in enumerate(packets) if not packet.disposable}
        else:
            used = {reference for frame in frames if not frame.is_repeat for reference in frame.references}
            kept = {number for number, packet in enumerate(packets) if packet.random_access}
            kept |= {
                frame.packet
                for number, frame in enumerate(frames)
                if frame.shown and (number in used or (frame.is_repeat and not used.isdisjoint(frame.references)))
            }
        order = self._dependencies.display_order
        return np.array([index for index, number in enumerate(order) if number in kept], dtype=np.int64)


def nearest_distinct(candidates: Indices, wanted: Indices) -> Indices:
    """A candidate for each wanted index: all distinct, in order, with the least sum of distances.

    Args:
        candidates: ascending and distinct, at least as many as are wanted.
        wanted: ascending.
    """
    count = len(wanted)
    # No index needs a candidate beyond its `count` nearest on either side. This bounds the work in long videos.
    near = np.searchsorted(candidates, wanted)[:, None] + np.arange(-count, count)
    candidates = candidates[np.unique(np.clip(near, 0, len(candidates) - 1))]
    sums: list[npt.NDArray[np.float64]] = []  # sums[i][k]: the least for indices 0 to i with candidates 0 to k.
    before = np.zeros(len(candidates))
    for index in wanted:
        sums.append(np.minimum.accumulate(before + np.abs(candidates - index)))
        before = np.concatenate([[np.inf], sums[-1][:-1]])
    chosen, end = [], len(candidates)
    for row in reversed(sums):
        end = int(np.argmin(row[:end]))
        chosen.append(candidates[end])
    return np.array(chosen[::-1], dtype=np.int64)


def nearest(candidates: Indices, wanted: Indices) -> Indices:
    """The nearest candidate of each wanted index, the earlier of two.

    Args:
        candidates: ascending, at least one.
        wanted: in any order.
    """
    after = np.searchsorted(candidates, wanted).clip(max=len(candidates) - 1)
    earlier, later = candidates[np.maximum(after - 1, 0)], candidates[after]
    return np.where(np.abs(wanted - earlier) <= np.abs(later - wanted), earlier, later)


def _move_to_key_frames(selection: FrameSelection, key_frames: Indices) -> FrameSelection:
    if any(len(view) > len(key_frames) for views in selection.indices.values() for view in views):
        return selection
    moved = selection.map_views(lambda view: nearest_distinct(key_frames, view))
    return replace(moved, policy="keyframes")


def _move_to_references(selection: FrameSelection, references: Indices) -> FrameSelection:
    if not len(references):
        return selection
    return replace(selection.map_views(lambda view: nearest(references, view)), quality="draft")


def _between(indices: Indices, first: int, last: int) -> Indices:
    return indices[np.searchsorted(indices, first) : np.searchsorted(indices, last, side="right")]
