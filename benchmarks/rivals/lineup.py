"""Who takes part, and the settings among which each one's best is looked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rivals.networks import Ground

Scores = dict[int, float]  # by class number; the best few or all
Classify = Callable[[str], Scores]
Setting = Mapping[str, Any]  # "concurrency" is how many videos are under way at once


@dataclass(frozen=True)
class Contestant:
    """One way to do it.

    key: short name. title: what the tables say. opener: module:function, called with a Ground and a Setting; gives a
    context manager over Classify. settings: those tried, the first one without a try-out. needs: modules beyond what
    every contestant has. seat: the contestant in whose process it runs, its own unless said.
    """

    key: str
    title: str
    opener: str
    settings: tuple[Setting, ...]
    needs: tuple[str, ...] = ()
    seat: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether all that it needs is there."""
        return all(find_spec(module) is not None for module in self.needs)

    def open(self, ground: Ground, setting: Setting) -> AbstractContextManager[Classify]:
        """Start it; entered, it answers."""
        module, _, function = self.opener.partition(":")
        opened: AbstractContextManager[Classify] = getattr(importlib.import_module(module), function)(ground, setting)
        return opened


OURS, REFERENCE = "clipserve", "codelab"


def list_contestants(cores: int) -> list[Contestant]:
    """All of them; `cores` is what settings are made for."""
    ours, codelab = "rivals.our_service:open_service", "rivals.codelab:open_codelab"
    calls = [2 * cores, 4 * cores]
    return [
        Contestant(OURS, "clipserve", ours, tuple({"precision": "auto", "concurrency": n} for n in calls)),
        Contestant(
            "clipserve-fp32",
            "clipserve, fp32",
            ours,
            tuple({"precision": "fp32", "concurrency": n} for n in calls),
        ),
        Contestant("clipserve-one", "clipserve, one at a time", ours, ({"concurrency": 1},), seat=OURS),
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
            # What one who knows PyAV would change first.
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
            "rivals.process_pool:open_pool",
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
            "rivals.plain_ensemble:open_ensemble",
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
            "rivals.litserve_service:open_service",
            (
                {"network": "onnxruntime", "workers": cores, "threads": 1, "concurrency": 2 * cores},
                {"network": "onnxruntime", "workers": 1, "threads": cores, "concurrency": 2 * cores},
                {"network": "torch", "workers": cores, "threads": 1, "concurrency": 2 * cores},
            ),
            needs=("torchcodec", "litserve"),
        ),
    ]


def describe(setting: Setting) -> str:
    """In words."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())
