"""The codelab's way: PyAV decodes every frame to RGB; T of them are scaled and cropped; torch runs the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
import torch

from rivals.lineup import Classify, Scores, Setting
from rivals.networks import Ground, load_eager
from rivals.pixels import choose_frames, finish_clip


@contextmanager
def open_codelab(ground: Ground, setting: Setting) -> Iterator[Classify]:
    """decode: FFmpeg's kind of threads. threads: torch's, for one run of the network."""
    torch.set_num_threads(setting["threads"])
    network, geometry = load_eager(ground), ground.spec.geometry

    def classify(path: str) -> Scores:
        with av.open(path) as container:
            container.streams.video[0].thread_type = setting["decode"]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = np.stack([frames[number] for number in choose_frames(len(frames), geometry.frames).tolist()])
        clip = finish_clip(torch.from_numpy(chosen).permute(0, 3, 1, 2), geometry)
        with torch.inference_mode():
            return dict(enumerate(network(clip)[0].tolist()))

    yield classify
