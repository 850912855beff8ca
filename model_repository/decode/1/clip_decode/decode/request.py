"""What is asked of a decode, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clip_decode.decode.decoder import DecoderName
from clip_decode.geometry import Geometry
from clip_decode.picture.clip_buffer import Canvas
from clip_decode.plan.frame_selection import Selection, select_frames
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Sampling


@dataclass(frozen=True)
class Wish:
    """The clips wanted of one video."""

    geometries: Mapping[str, Geometry]
    sampling: Sampling

    def select(self, timeline: Timeline) -> Selection:
        """Frame numbers on a timeline."""
        return select_frames(timeline, self.geometries, self.sampling)

    def prepare(self, selection: Selection) -> Canvas:
        """An empty canvas for these frames."""
        return Canvas(self.geometries, self.sampling, selection)


@dataclass(frozen=True)
class Outcome:
    """One attempt at decoding.

    Attributes:
        canvas: the clips, complete or not.
        selection: the frames that are on it.
        timeline: of the frames that the video has, as far as known now.
        order: the packet that each frame comes from, in the order they are shown.
        is_complete: whether every frame on `selection` is drawn and is the right one.
        damaged: whether something could not be decoded, or only with errors concealed.
        method: "selected" or "whole".
        decoder: which kind decoded it.
        decoded_frames: work done, earlier attempts included.
    """

    canvas: Canvas
    selection: Selection
    timeline: Timeline
    order: Sequence[int | None]
    is_complete: bool
    damaged: bool
    method: Literal["selected", "whole"]
    decoder: DecoderName
    decoded_frames: int
