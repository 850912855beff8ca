"""How a stored frame must be turned to stand upright.

FFmpeg's display matrix says it, whether it comes from the container, an SEI message, or the EXIF orientation of a JPEG
or PNG image, which FFmpeg's decoders turn into a matrix. ffmpeg and its players use the same matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.frame import VideoFrame

from clip_decode.picture import Pixels


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of a rectangle: transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation_degrees(self) -> int:
        """Clockwise turn, without the mirroring."""
        if self.transpose:
            return 90 if self.mirror_x else 270
        return 180 if self.mirror_y else 0

    def upright_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the turn; also the inverse of that."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, stored: Pixels) -> Pixels:
        """Turn [H, W, 3] upright; a view, not a copy."""
        upright = stored.transpose(1, 0, 2) if self.transpose else stored
        if self.mirror_x:
            upright = upright[:, ::-1]
        return upright[::-1] if self.mirror_y else upright


UPRIGHT = Orientation()


def read_orientation(frame: VideoFrame) -> Orientation:
    """Read the display matrix of a decoded frame; other angles are rounded to the nearest quarter turn.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y), in 16.16 fixed point.
    """
    # Not frame.side_data: frame and container would refer to each other and live until the garbage collector runs,
    # which at 8192 x 4352 is 2 GiB after fifteen frames. The first matrix counts, as in av_frame_get_side_data.
    parts: Iterable[SideData] = SideDataContainer(frame)  # type: ignore[call-arg]
    side_data = next((data for data in parts if data.type is Type.DISPLAYMATRIX), None)
    if side_data is None:
        return UPRIGHT
    matrix = np.frombuffer(memoryview(side_data), dtype=np.int32)
    if matrix.size < 5:
        return UPRIGHT
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Orientation(mirror_x=a < 0, mirror_y=d < 0)


def _name_unknown_type(cls: type[Type], number: int) -> Type:
    """A member of PyAV's enumeration for a type of side data that it does not list."""
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{number}", number  # type: ignore[assignment]
    return member


# PyAV wraps all side data of a frame at once, and raises ValueError for a type that FFmpeg knows and its enumeration
# does not: in PyAV 18.1 with FFmpeg 8.1, EXIF (31) of JPEG and PNG images and the view ids of MV-HEVC. Enum calls this
# for unknown values.
Type._missing_ = classmethod(_name_unknown_type)  # type: ignore[assignment]
