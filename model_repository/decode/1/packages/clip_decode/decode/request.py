"""The request for a decode, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clip_decode.decode.decoder import DecoderName
from clip_decode.dependencies.packet_dependencies import Dependencies
from clip_decode.errors import InvalidRequest
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.picture.clip_buffer import ClipBuffer
from clip_decode.plan.frame_selection import FrameSelection, select_frames
from clip_decode.plan.shortcuts import Shortcuts
from clip_decode.plan.timeline import Timeline
from clip_decode.sampling import Sampling


@dataclass(frozen=True)
class DecodeRequest:
    """The clips wanted of one video, and its limits.

    Raises:
        InvalidRequest: there is no geometry.
    """

    geometries: Mapping[str, Geometry]
    sampling: Sampling
    limits: Limits

    def __post_init__(self) -> None:
        if not self.geometries:
            raise InvalidRequest("no clip was asked for")

    def select(self, timeline: Timeline, dependencies: Dependencies | None = None) -> FrameSelection:
        """The frames of a timeline that the clips consist of.

        Without dependencies, which a full decode does not need, they are the exact ones.
        """
        selection = select_frames(timeline, self.geometries, self.sampling)
        return selection if dependencies is None else Shortcuts(timeline, dependencies).take(selection, self.sampling)

    def allocate(self, selection: FrameSelection) -> ClipBuffer:
        """An empty buffer for these frames."""
        return ClipBuffer(self.geometries, self.sampling, selection)


@dataclass(frozen=True)
class DecodeResult:
    """The result of one attempt at decoding.

    Attributes:
        buffer: the clips, complete or not.
        selection: the frames in the buffer.
        timeline: of all frames of the video, as far as known after this attempt.
        display_order: for each frame in display order, the number of its packet; None where that is unknown.
        is_complete: whether every frame of `selection` is in the buffer and is the right one.
        damaged: whether something could not be decoded, or only with errors concealed.
        method: "selected" for a sparse decode, "whole" for a full decode.
        decoder: which decoder decoded it.
        decoded_frames: number of frames decoded, earlier attempts included.
    """

    buffer: ClipBuffer
    selection: FrameSelection
    timeline: Timeline
    display_order: Sequence[int | None]
    is_complete: bool
    damaged: bool
    method: Literal["selected", "whole"]
    decoder: DecoderName
    decoded_frames: int
