"""Training clips: scenes as the network gets them, after encoding, decoding and scaling."""

import io
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clipserve_export.motion.network import CROP, FRAMES
from clipserve_export.motion.scenes import LABELS, Scene
from clipserve_export.motion.videos import write_video

Clips = npt.NDArray[np.uint8]

_CHUNK = 200  # clips that a worker makes at a time
_ENCODED_SHARE = 0.25
_SHORT_SIDES = (64, 140)  # of the filmed picture, in pixels
_ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.35)
_FRAME_COUNTS = (9, 150)  # of the filmed video; few frames make uneven steps


def draw_clip(label: str, rng: np.random.Generator) -> Clips:
    """uint8 [FRAMES, CROP, CROP, 3] of a scene of this label."""
    short = int(np.exp(rng.uniform(*np.log(_SHORT_SIDES))))
    long = int(short * rng.choice(_ASPECTS))
    width, height = (long, short) if rng.random() < 0.75 else (short, long)
    width, height = width + width % 2, height + height % 2
    count = int(rng.integers(*_FRAME_COUNTS))
    # PyTorchVideo's uniform sampling truncates a frame's number.
    numbers = np.linspace(0, count - 1, FRAMES).astype(int)
    frames = Scene.draw(label, rng).render(numbers / (count - 1), width, height)
    if rng.random() < _ENCODED_SHARE:
        frames = _encode_and_decode(frames, crf=int(rng.integers(18, 38)))
    return _scale_and_crop(frames, antialias=bool(rng.random() < 0.7))


def _encode_and_decode(frames: Clips, *, crf: int) -> Clips:
    file = io.BytesIO()
    write_video(file, frames, container="mp4", options={"crf": str(crf), "preset": "ultrafast"})
    file.seek(0)
    with av.open(file, "r") as container:
        decoded: Clips = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return decoded


def _scale_and_crop(frames: Clips, *, antialias: bool) -> Clips:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    scale = CROP / min(pixels.shape[-2:])
    size = [max(CROP, int(side * scale)) for side in pixels.shape[-2:]]
    pixels = interpolate(pixels, size=size, mode="bilinear", antialias=antialias)
    top, left = (size[0] - CROP) // 2, (size[1] - CROP) // 2
    cut: Clips = (
        pixels[:, :, top : top + CROP, left : left + CROP].round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    )
    return cut


def _draw_chunk(seed: int, chunk: int) -> Clips:
    torch.set_num_threads(1)
    rng = np.random.default_rng((seed, chunk))
    return np.stack([draw_clip(LABELS[number % len(LABELS)], rng) for number in range(_CHUNK)])


def draw_clips(count: int, *, seed: int, workers: int) -> tuple[Tensor, Tensor]:
    """At least `count` clips, uint8 [N, FRAMES, CROP, CROP, 3], and their labels' indices [N]; the same for a seed."""
    chunks = -(-count // _CHUNK)
    # A fork of a process in which torch has threads can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        clips = np.concatenate(list(pool.map(_draw_chunk, [seed] * chunks, range(chunks))))
    targets = torch.arange(_CHUNK).remainder(len(LABELS)).repeat(chunks)
    return torch.from_numpy(clips), targets
