"""From a video to the clip that a network takes, as it is usually done: float, normalised, channels first."""

from __future__ import annotations

import io
from math import floor
from typing import Any

import torch
from torch import Tensor

from clipserve_export.specs import Geometry

MEAN, STD = 0.45, 0.225  # of every channel: the published networks


def choose_frames(count: int, wanted: int) -> Tensor:
    """The frame numbers of `uniform_temporal_subsample`: evenly from the first frame to the last."""
    return torch.linspace(0, count - 1, wanted).clamp(0, count - 1).long()


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Height and width with this short side, as PyTorchVideo's short_side_scale rounds."""
    if width < height:
        return floor(height / width * short_side), short_side
    return short_side, floor(width / height * short_side)


def finish_clip(frames: Tensor, geometry: Geometry) -> Tensor:
    """uint8 [T, 3, H, W], any size -> float [1, 3, T, S, S]: scaled, centre cropped, normalised."""
    height, width = scaled_size(frames.shape[-1], frames.shape[-2], geometry.short_side)
    clip = frames.float()
    if clip.shape[-2:] != (height, width):
        clip = torch.nn.functional.interpolate(clip, size=(height, width), mode="bilinear", align_corners=False)
    top, left = (height - geometry.crop) // 2, (width - geometry.crop) // 2
    clip = clip[..., top : top + geometry.crop, left : left + geometry.crop]
    return ((clip / 255 - MEAN) / STD).transpose(0, 1)[None].contiguous()


def read_with_torchcodec(video: str | bytes, geometry: Geometry, *, threads: int) -> Tensor:
    """Decode only the frames wanted, scaled inside the decoder; PyAV takes the files that torchcodec does not.

    Scaling inside the decoder needs the size beforehand, so it reads the header twice, and is still faster.
    """
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]
    from torchcodec.transforms import Resize  # type: ignore[attr-defined]

    try:
        header = VideoDecoder(video, seek_mode="approximate").metadata
        if header.width is None or header.height is None:
            raise ValueError("the header does not say how large the picture is")
        size = scaled_size(header.width, header.height, geometry.short_side)
        decoder = VideoDecoder(video, num_ffmpeg_threads=threads, transforms=[Resize(size)])
        frames = decoder.get_frames_at(choose_frames(len(decoder), geometry.frames).tolist()).data
    except (RuntimeError, ValueError, IndexError):
        # AVI and MPEG-TS, whose timestamps torchcodec refuses.
        return read_with_pyav(video, geometry)
    return finish_clip(frames, geometry)


def read_with_pyav(video: str | bytes, geometry: Geometry) -> Tensor:
    """Decode all frames; swscale scales those wanted."""
    import av
    import numpy as np

    source: Any = io.BytesIO(video) if isinstance(video, bytes) else video
    with av.open(source) as container:
        frames = list(container.decode(video=0))
    height, width = scaled_size(frames[0].width, frames[0].height, geometry.short_side)
    chosen = [frames[number] for number in choose_frames(len(frames), geometry.frames).tolist()]
    pixels = np.stack([frame.to_ndarray(format="rgb24", width=width, height=height) for frame in chosen])
    return finish_clip(torch.from_numpy(pixels).permute(0, 3, 1, 2), geometry)
