"""The scaled frames that overlapping windows share: each frame is converted once, and kept until its last use."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from clip_decode.geometry import Geometry
from clip_decode.picture import Pixels
from clip_decode.picture.clip_buffer import FrameFacts, read_facts
from clip_decode.picture.scaling import Scaler
from clip_decode.sampling import Sampling

FrameNumbers = npt.NDArray[np.int32]


class SharedFrames:
    """Frames by their number in display order.

    Args:
        geometry: size of the clips.
        sampling: how frames are scaled and cropped.
        windows: the frame numbers of each window, [views, T].
        frames: number of frames of the video.

    Attributes:
        facts: of the first frame added; None before.
    """

    def __init__(self, geometry: Geometry, sampling: Sampling, windows: Iterable[FrameNumbers], frames: int) -> None:
        self._geometry, self._sampling = geometry, sampling
        self._scaler = Scaler(geometry, sampling)
        self._uses = np.zeros(frames, np.uint32)  # windows that are still to take the frame
        for numbers in windows:
            self._uses[np.unique(numbers)] += 1
        self._crops: dict[int, list[Pixels]] = {}
        self._lost: set[int] = set()
        self.facts: FrameFacts | None = None

    @property
    def wanted(self) -> list[int]:
        """Every frame that a window uses, in order."""
        found: list[int] = np.flatnonzero(self._uses).tolist()
        return found

    def missing(self, numbers: FrameNumbers) -> set[int]:
        """Those of the frames that were neither added nor lost."""
        return set(np.unique(numbers).tolist()) - self._crops.keys() - self._lost

    def add(self, number: int, frame: VideoFrame) -> None:
        """Scale a frame and keep it, if a window is still to take it."""
        if self._uses[number]:
            self.facts = self.facts or read_facts(frame)
            self._crops[number] = self._scaler.scale(frame)

    def lose(self, number: int) -> None:
        """A frame does not come."""
        self._lost.add(number)

    def take(self, numbers: FrameNumbers) -> Pixels | None:
        """The clips [V, T, S, S, 3] of a window, or None where one of its frames is lost. Drops what no other uses."""
        wanted = np.unique(numbers).tolist()
        clips = None if self._lost.intersection(wanted) else self._assemble(numbers)
        self._uses[wanted] -= 1
        for number in wanted:
            if not self._uses[number]:
                self._crops.pop(number, None)
                self._lost.discard(number)
        return clips

    def _assemble(self, numbers: FrameNumbers) -> Pixels:
        crops, side = self._sampling.crops, self._geometry.crop
        views, length = numbers.shape
        clips = np.empty((views * crops, length, side, side, 3), np.uint8)
        for view, row in enumerate(numbers.tolist()):
            for position, number in enumerate(row):
                for crop, pixels in enumerate(self._crops[number]):
                    clips[view * crops + crop, position] = pixels
        return clips
