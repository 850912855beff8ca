"""Scaling, cropping and colours against PyTorchVideo's arithmetic and the standards' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from clip_decode import Geometry, Sampling, decode_clips
from clip_decode.picture.color_conversion import convert_frame, convert_planes
from clip_decode.picture.crop_region import CropRange, find_crop_range
from clip_decode.picture.scaling import FAST_FILTER, Scaler, place_crops
from tests.decode.synthesis import Clip, Pixels, decode_plainly, paint_texture


def scale_like_pytorchvideo(rgb: Pixels, short_side: int, side: int, spatial: int) -> torch.Tensor:
    """pytorchvideo.transforms.functional: short_side_scale, then uniform_crop; [S, S, 3] floats."""
    height, width = rgb.shape[:2]
    if width < height:
        size = (math.floor((float(height) / width) * short_side), short_side)
    else:
        size = (short_side, math.floor((float(width) / height) * short_side))
    planes = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float()
    scaled = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    y, x = math.ceil((size[0] - side) / 2), math.ceil((size[1] - side) / 2)
    if size[0] > size[1]:
        y = (0, y, size[0] - side)[spatial]
    else:
        x = (0, x, size[1] - side)[spatial]
    return scaled[0, :, y : y + side, x : x + side].permute(1, 2, 0)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64), (200, 50), (50, 202), (320, 180)])
@pytest.mark.parametrize("geometry", [(40, 32), (48, 48), (97, 96), (33, 20)])
def test_reference_scaling_is_pytorchvideos_within_rounding(size: tuple[int, int], geometry: tuple[int, int]) -> None:
    data = Clip(frames=2, width=size[0], height=size[1]).make()
    rgb = decode_plainly(data).frames[0]
    clip = Geometry(1, 1, *geometry)
    for crops in (1, 3):
        squares = decode_clips(data, clip, Sampling(crops=crops, quality="reference"))[0][:, 0]
        for number in range(crops):
            expected = scale_like_pytorchvideo(rgb, *geometry, number if crops == 3 else 1)
            assert (torch.from_numpy(squares[number]).float() - expected).abs().max() <= 0.51


def test_fast_scaling_stays_near_the_reference(real_video: bytes) -> None:
    clip = Geometry(8, 5, 256, 224)
    fast = decode_clips(real_video, clip)[0].astype(int)
    reference = decode_clips(real_video, clip, Sampling(quality="reference"))[0].astype(int)
    assert np.abs(fast - reference).mean() < 2.5
    assert abs((fast - reference).mean()) < 1.5
    assert np.percentile(np.abs(fast - reference), 99) <= 12


@pytest.mark.parametrize("policy", ["uniform", "clip"])
def test_three_crops_run_along_the_longer_side(policy: str) -> None:
    def paint(number: int) -> Pixels:
        thirds = np.repeat(np.array([40, 120, 200], np.uint8), 64)
        return np.broadcast_to(thirds[None, :, None], (64, 192, 3)).copy()

    for rotation in (0, 90):
        data = Clip(frames=4, width=192, height=64, paint=paint, rotation=rotation).make()
        views = 2 if policy == "clip" else 1
        clips, _ = decode_clips(data, Geometry(2, 1, 64, 64), Sampling(policy=policy, views=views, crops=3))
        levels = clips.mean(axis=(1, 2, 3, 4)).reshape(views, 3)
        expected = [40, 120, 200] if rotation == 0 else [200, 120, 40]
        assert np.allclose(levels, expected, atol=3)


@pytest.mark.parametrize("size", [(16, 800), (800, 16), (2000, 16)])
def test_very_long_frames_take_little_memory(size: tuple[int, int]) -> None:
    data = Clip(frames=2, width=size[0], height=size[1]).make()
    clips, _ = decode_clips(data, Geometry(2, 1, 256, 256), Sampling(crops=3))
    assert clips.shape == (3, 2, 256, 256, 3)


def test_placement_rounds_as_pytorchvideo() -> None:
    placement = place_crops(1280, 720, Geometry(1, 1, 256, 224), 3)
    assert (placement.width, placement.height) == (455, 256)
    assert placement.corners == ((0, 16), (116, 16), (231, 16))


# Kr, Kb of ITU-R BT.601, BT.709 and BT.2020, by AVColorSpace; unspecified is BT.601.
MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("space", MATRICES)
@pytest.mark.parametrize("colour_range", [0, 1, 2])
def test_matrix_and_range_of_the_frame_are_honoured(space: int, colour_range: int) -> None:
    kr, kb = MATRICES[space]
    full = colour_range == 2
    for luma, blue, red in [(120, 128, 128), (100, 90, 150), (150, 160, 110), (60, 128, 140)]:
        planes = np.concatenate([np.full((32, 48), luma), np.full((8, 48), blue), np.full((8, 48), red)])
        frame = VideoFrame.from_ndarray(planes.astype(np.uint8), format="yuv420p")
        frame.colorspace, frame.color_range = space, colour_range
        y = luma / 255 if full else (luma - 16) / 219
        cb, cr = ((c - 128) / (255 if full else 224) for c in (blue, red))
        r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
        for width, height in ((48, 32), (24, 16)):
            seen = convert_frame(frame, VideoReformatter(), width, height)[8, 12]
            # Without scaling swscale is up to four levels off: see scaling.py on its bias.
            assert np.abs(seen - np.array([r, g, b]) * 255).max() < 4
        (square,) = Scaler(Geometry(1, 1, 16, 8), Sampling()).scale(frame)
        assert np.abs(square - np.array([r, g, b]) * 255).max() < 3


CROP_FORMATS = ["yuv420p", "yuv411p", "yuv422p10le", "nv12", "yuvj420p", "gray", "rgb24", "gbrp", "yuva420p", "monob"]


@pytest.mark.parametrize("pixel_format", CROP_FORMATS)
@pytest.mark.parametrize("size", [(854, 480), (1280, 720), (480, 854), (321, 181), (640, 200), (180, 320), (96, 72)])
def test_crops_of_a_cropped_frame_are_those_of_the_whole_frame(size: tuple[int, int], pixel_format: str) -> None:
    frame = VideoFrame.from_ndarray(paint_texture(3, *size), format="rgb24").reformat(format=pixel_format)
    if "yuv" in pixel_format:
        frame.colorspace = 1
    for geometry, crops in [((256, 224), 1), ((64, 64), 1), ((182, 182), 3)]:
        sampled = Geometry(1, 1, *geometry)
        placement = place_crops(*size, sampled, crops)
        planes = convert_planes(frame, VideoReformatter(), placement.width, placement.height, FAST_FILTER)
        whole = np.stack(planes, axis=-1).astype(int)
        squares = Scaler(sampled, Sampling(crops=crops)).scale(frame)
        side = geometry[1]
        for square, (x, y) in zip(squares, placement.corners, strict=True):
            difference = np.abs(square - whole[y : y + side, x : x + side])
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


def test_only_the_crop_region_is_scaled_where_possible() -> None:
    assert find_crop_range(1280, 455, [100], 256, 2) == CropRange(256, 768, 91, 273)
    assert find_crop_range(853, 454, [99], 256, 1) == CropRange(0, 853, 0, 454)


@pytest.mark.parametrize("space", [3, 8, 10, 11, 14, 17])
def test_unknown_matrices_and_ranges_are_read_as_unspecified(space: int) -> None:
    frame = VideoFrame.from_ndarray(paint_texture(1, 64, 48), format="rgb24").reformat(format="yuv420p")
    expected = convert_frame(frame, VideoReformatter())
    frame.colorspace, frame.color_range = space, 5
    assert (convert_frame(frame, VideoReformatter()) == expected).all()


@pytest.mark.parametrize(
    "pixel_format",
    [
        "gray",
        "gray10le",
        "yuv444p",
        "yuv422p10le",
        "yuva420p",
        "rgba",
        "bgra",
        "gbrp",
        "nv12",
        "p010le",
        "ya8",
        "monob",
    ],
)
def test_every_pixel_format_becomes_rgb(pixel_format: str) -> None:
    flat = np.full((48, 64, 3), 200, np.uint8)
    frame = VideoFrame.from_ndarray(flat, format="rgb24").reformat(format=pixel_format)
    for size in ((None, None), (32, 24)):
        assert abs(convert_frame(frame, VideoReformatter(), *size).mean() - 200) < (
            60 if pixel_format == "monob" else 3
        )


def test_palettes_become_rgb() -> None:
    palette = np.zeros((256, 4), np.uint8)
    palette[7] = (255, 10, 200, 30)  # ARGB
    frame = VideoFrame.from_ndarray((np.full((48, 64), 7, np.uint8), palette), format="pal8")
    assert (convert_frame(frame, VideoReformatter()) == np.array([10, 200, 30])).all()
