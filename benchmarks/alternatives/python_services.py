"""Without a server: the codelab's script, and a pool of processes with torchcodec and ONNX Runtime."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
import torch

from benchmarks.alternatives.contestants import Classify, Scores, Setting
from benchmarks.alternatives.preprocessing import choose_frames, finish_clip, read_with_torchcodec
from benchmarks.alternatives.shared_model import SharedModel, load_eager, load_session


@contextmanager
def open_codelab(model: SharedModel, setting: Setting) -> Iterator[Classify]:
    """PyAV decodes every frame to RGB; T of them are scaled and cropped; torch runs the network.

    Setting: decode: the kind of FFmpeg's threads; threads: of torch, for one run of the network.
    """
    torch.set_num_threads(setting["threads"])
    network, geometry = load_eager(model), model.spec.geometry

    def classify(path: str) -> Scores:
        with av.open(path) as container:
            container.streams.video[0].thread_type = setting["decode"]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chosen = np.stack([frames[number] for number in choose_frames(len(frames), geometry.frames).tolist()])
        clip = finish_clip(torch.from_numpy(chosen).permute(0, 3, 1, 2), geometry)
        with torch.inference_mode():
            return dict(enumerate(network(clip)[0].tolist()))

    yield classify


_worker: dict[str, Any] = {}  # what a worker process of the pool keeps from video to video


def set_up_worker(model: str, threads: int) -> None:
    """Runs once in each process of the pool."""
    torch.set_num_threads(threads)
    shared = SharedModel.from_json(model)
    _worker.update(geometry=shared.spec.geometry, threads=threads, session=load_session(shared, threads=threads))


def classify_in_worker(path: str) -> Scores:
    """Classify one video in a process of the pool."""
    clip = read_with_torchcodec(path, _worker["geometry"], threads=_worker["threads"])
    (scores,) = _worker["session"].run(["SCORES"], {"CLIP": clip.numpy()})
    return dict(enumerate(scores[0].tolist()))


@contextmanager
def open_pool(model: SharedModel, setting: Setting) -> Iterator[Classify]:
    """Setting: processes: their number; threads: of the decoder and of the network in each."""
    with ProcessPoolExecutor(
        setting["processes"],
        mp_context=multiprocessing.get_context("spawn"),
        initializer=set_up_worker,
        initargs=(model.to_json(), setting["threads"]),
    ) as pool:
        yield lambda path: pool.submit(classify_in_worker, path).result()
