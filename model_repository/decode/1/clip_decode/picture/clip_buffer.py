"""The clips being made: a place for every frame that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from clip_decode.geometry import Geometry
from clip_decode.picture.orientation import Pixels, read_orientation
from clip_decode.picture.scaling import Scaler
from clip_decode.plan.frame_selection import Selection
from clip_decode.sampling import Sampling


@dataclass(frozen=True)
class Picture:
    """The first frame drawn: upright size in pixels, clockwise turn, FFmpeg's pixel format."""

    width: int
    height: int
    rotation_degrees: int
    pixel_format: str


class Canvas:
    """Output arrays [V, T, S, S, 3] by geometry, and what is still to be drawn on them."""

    def __init__(self, geometries: Mapping[str, Geometry], sampling: Sampling, selection: Selection) -> None:
        self._sampling = sampling
        self._scalers = {name: Scaler(g, sampling) for name, g in geometries.items()}
        self.missing = set(selection.wanted)
        self.picture: Picture | None = None
        self.clips: dict[str, Pixels] = {}
        self._places: dict[int, list[tuple[str, int, int]]] = {}
        for name, geometry in geometries.items():
            side = geometry.crop
            shape = (sampling.clips, geometry.frames, side, side, 3)
            self.clips[name] = np.zeros(shape, dtype=np.uint8)
            for view, indices in enumerate(selection.indices[name]):
                for position, index in enumerate(indices):
                    self._places.setdefault(index, []).append((name, view, position))

    def draw(self, index: int, frame: VideoFrame) -> None:
        """Scale the frame with this number into every place that wants it."""
        self.picture = self.picture or _describe(frame)
        squares: dict[str, list[Pixels]] = {}
        for name, view, position in self._places[index]:
            if name not in squares:
                squares[name] = self._scalers[name].cut(frame)
            for number, square in enumerate(squares[name]):
                self.clips[name][view * self._sampling.crops + number, position] = square
        self.missing.discard(index)


def _describe(frame: VideoFrame) -> Picture:
    orientation = read_orientation(frame)
    width, height = frame.width, frame.height
    if orientation.transpose:
        width, height = height, width
    return Picture(width, height, orientation.rotation_degrees, frame.format.name)
