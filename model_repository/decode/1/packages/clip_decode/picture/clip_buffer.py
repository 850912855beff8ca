"""The clips that a decode fills, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from clip_decode.geometry import Geometry
from clip_decode.picture import Pixels
from clip_decode.picture.orientation import read_orientation
from clip_decode.picture.scaling import Scaler
from clip_decode.plan.frame_selection import FrameSelection
from clip_decode.sampling import Sampling


@dataclass(frozen=True)
class FrameFacts:
    """The first frame written: upright size in pixels, clockwise turn, FFmpeg's pixel format."""

    width: int
    height: int
    rotation_degrees: int
    pixel_format: str


class ClipBuffer:
    """Output arrays, and the frames that are still missing in them.

    Attributes:
        clips: for each geometry by name, uint8 [V, T, S, S, 3].
        missing: frame indices in display order that are still to be written.
        facts: of the first frame written; None before.
    """

    def __init__(self, geometries: Mapping[str, Geometry], sampling: Sampling, selection: FrameSelection) -> None:
        self._crops = sampling.crops
        self._scalers = {name: Scaler(geometry, sampling) for name, geometry in geometries.items()}
        self.missing = set(selection.wanted)
        self.facts: FrameFacts | None = None
        self.clips: dict[str, Pixels] = {}
        self._places: dict[int, list[tuple[str, int, int]]] = {}  # By frame index: geometry, view, position.
        for name, geometry in geometries.items():
            side = geometry.crop
            shape = (sampling.clips, geometry.frames, side, side, 3)
            self.clips[name] = np.zeros(shape, dtype=np.uint8)
            for view, indices in enumerate(selection.indices[name]):
                for position, index in enumerate(indices):
                    self._places.setdefault(index, []).append((name, view, position))

    def write(self, index: int, frame: VideoFrame) -> None:
        """Scale a frame and copy it to every place that uses its index."""
        self.facts = self.facts or read_facts(frame)
        crops: dict[str, list[Pixels]] = {}
        for name, view, position in self._places[index]:
            if name not in crops:
                crops[name] = self._scalers[name].scale(frame)
            for number, crop in enumerate(crops[name]):
                self.clips[name][view * self._crops + number, position] = crop
        self.missing.discard(index)


def read_facts(frame: VideoFrame) -> FrameFacts:
    """What is known of a decoded frame."""
    orientation = read_orientation(frame)
    width, height = orientation.upright_size(frame.width, frame.height)
    return FrameFacts(width, height, orientation.rotation_degrees, frame.format.name)
