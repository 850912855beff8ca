"""The contestants, and the settings that are tried to find the best of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from benchmarks.alternatives.shared_model import SharedModel

Scores = dict[int, float]  # by class number; the best few or all
Classify = Callable[[str], Scores]
Setting = Mapping[str, Any]  # "concurrency": videos in flight


@dataclass(frozen=True)
class Contestant:
    """One way to serve the model.

    key: short name. title: in the tables. opener: module:function, called with a SharedModel and a Setting; returns a
    context manager over Classify. settings: those to try; without tuning the first counts. needs: modules that not
    every contestant needs. process: the contestant whose process it uses; its own by default.
    """

    key: str
    title: str
    opener: str
    settings: tuple[Setting, ...]
    needs: tuple[str, ...] = ()
    process: str = ""

    def open(self, model: SharedModel, setting: Setting) -> AbstractContextManager[Classify]:
        """A context manager that starts it."""
        module, _, function = self.opener.partition(":")
        opened: AbstractContextManager[Classify] = getattr(importlib.import_module(module), function)(model, setting)
        return opened


OURS, REFERENCE = "clipserve", "codelab"


def list_contestants(cores: int) -> list[Contestant]:
    """All contestants, with settings for so many cores."""
    here = "benchmarks.alternatives."
    ours, codelab = f"{here}triton_services:open_clipserve", f"{here}python_services:open_codelab"
    calls = [2 * cores, 4 * cores]
    return [
        Contestant(OURS, "clipserve", ours, tuple({"precision": "auto", "concurrency": n} for n in calls)),
        Contestant(
            "clipserve-fp32",
            "clipserve, fp32",
            ours,
            tuple({"precision": "fp32", "concurrency": n} for n in calls),
        ),
        Contestant("clipserve-one", "clipserve, one at a time", ours, ({"concurrency": 1},), process=OURS),
        Contestant(
            REFERENCE,
            "codelab's way, one process",
            codelab,
            # PyAV's default, as in the operator that the codelab names (towhee/video-decode: cpu_decode.py).
            ({"decode": "SLICE", "threads": cores, "concurrency": 1},),
        ),
        Contestant(
            "codelab-frames",
            "codelab's way, frame threads",
            codelab,
            # The first change of somebody who knows PyAV.
            ({"decode": "AUTO", "threads": cores, "concurrency": 1},),
        ),
        Contestant(
            "codelab-five",
            "codelab's way, five threads",
            codelab,
            (
                {"decode": "AUTO", "threads": cores, "concurrency": 5},
                {"decode": "SLICE", "threads": cores, "concurrency": 5},
                {"decode": "SLICE", "threads": 1, "concurrency": 5},
            ),
        ),
        Contestant(
            "pool",
            "torchcodec + ONNX Runtime, process pool",
            f"{here}python_services:open_pool",
            (
                {"processes": cores, "threads": 1, "concurrency": cores},
                {"processes": 1, "threads": cores, "concurrency": 1},
                {"processes": cores, "threads": cores, "concurrency": cores},
            ),
            needs=("torchcodec",),
        ),
        Contestant(
            "ensemble",
            "plain Triton ensemble",
            f"{here}triton_services:open_ensemble",
            (
                {"decoders": cores, "networks": 1, "threads": cores, "concurrency": 2 * cores},
                {"decoders": cores, "networks": cores, "threads": 1, "concurrency": 2 * cores},
                {"decoders": cores, "networks": 1, "threads": cores, "concurrency": 4 * cores},
            ),
            needs=("torchcodec",),
        ),
        Contestant(
            "litserve",
            "LitServe",
            f"{here}litserve_service:open_service",
            (
                {"network": "onnxruntime", "workers": cores, "threads": 1, "concurrency": 2 * cores},
                {"network": "onnxruntime", "workers": 1, "threads": cores, "concurrency": 2 * cores},
                {"network": "torch", "workers": cores, "threads": 1, "concurrency": 2 * cores},
            ),
            needs=("torchcodec", "litserve"),
        ),
    ]


def describe(setting: Setting) -> str:
    """The setting in words."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())
