"""A pool of processes: each decodes with torchcodec and runs the network in ONNX Runtime."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from rivals.lineup import Classify, Scores, Setting
from rivals.networks import Ground, load_session
from rivals.pixels import read_with_torchcodec

_worker: dict[str, Any] = {}  # what a worker process keeps from video to video


def set_up_worker(ground: str, threads: int) -> None:
    """Once in each process."""
    import torch

    torch.set_num_threads(threads)
    facts = Ground.from_json(ground)
    _worker.update(geometry=facts.spec.geometry, threads=threads, session=load_session(facts, threads=threads))


def classify_in_worker(path: str) -> Scores:
    """One video."""
    clip = read_with_torchcodec(path, _worker["geometry"], threads=_worker["threads"])
    (scores,) = _worker["session"].run(["SCORES"], {"CLIP": clip.numpy()})
    return dict(enumerate(scores[0].tolist()))


@contextmanager
def open_pool(ground: Ground, setting: Setting) -> Iterator[Classify]:
    """processes: how many. threads: of the decoder and of the network in each."""
    with ProcessPoolExecutor(
        setting["processes"],
        mp_context=multiprocessing.get_context("spawn"),
        initializer=set_up_worker,
        initargs=(ground.to_json(), setting["threads"]),
    ) as pool:
        yield lambda path: pool.submit(classify_in_worker, path).result()
