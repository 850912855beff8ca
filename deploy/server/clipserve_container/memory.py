"""How much memory the server needs: shared memory for the decode step, and on a CPU the memory of the networks."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clipserve_container.cores import available_cores
from clipserve_container.repository import PublicModel, choose_models, names_openvino, read_parameters
from clipserve_container.settings import Settings

CGROUP = Path("/sys/fs/cgroup")
# From this release on (ONNX Runtime 1.23) OpenVINO keeps the memory of its largest run; before, that of every shape.
RELEASE_WITH_ONE_COPY = (25, 8)
# MiB for the server itself, and for decode workers with ordinary videos.
MEGABYTES_BESIDE_NETWORKS = 2048
# What Triton's Python backend takes for itself, for all models.
SHARED_MEMORY_FOR_BACKEND = 64 * 2**20
# Clips of one video, where the decode step's config sets no other limit.
MAX_CLIPS = 30
_MAX_BATCH = re.compile(r"^max_batch_size: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class LargestRun:
    """The largest batch that the configs allow for a network."""

    network: str
    videos: int
    clips: int  # of each video
    clip_megabytes: int  # MiB of memory for each clip

    @property
    def megabytes(self) -> int:
        """MiB of memory for this run."""
        return self.videos * self.clips * self.clip_megabytes

    @property
    def megabytes_of_all_shapes(self) -> int:
        """MiB of memory, when the memory of each number of videos and clips is kept."""
        videos, clips = (most * (most + 1) // 2 for most in (self.videos, self.clips))
        return videos * clips * self.clip_megabytes


def largest_runs(repository: Path, models: list[PublicModel]) -> list[LargestRun]:
    """For every network of `models`, by max_batch_size and the decode step's MAX_CLIP_..."""
    decode = read_parameters(repository, "decode")
    runs = []
    for model in models:
        output = re.search(r'key: "(CLIP_[^"]+)"', (repository / model.name / "config.pbtxt").read_text())
        for step in model.steps:
            megabytes = read_parameters(repository, step).get("clip_megabytes")
            if output and megabytes:
                most = _MAX_BATCH.search((repository / step / "config.pbtxt").read_text())
                clips = int(decode.get(f"MAX_{output[1]}", MAX_CLIPS))
                runs.append(LargestRun(step, int(most[1]) if most else 1, clips, int(megabytes)))
    return runs


def largest_clip_bytes(repository: Path) -> int:
    """Bytes of the decode step's largest clip: frames x crop x crop x 3."""
    clips = [
        json.loads(value) for name, value in read_parameters(repository, "decode").items() if name.startswith("CLIP_")
    ]
    return max((clip["frames"] * clip["crop"] ** 2 * 3 for clip in clips), default=0)


def shared_memory_needed(settings: Settings) -> int:
    """Bytes of /dev/shm: 64 MiB + (waiting + workers) x (video + views x largest clip).

    The videos that go to the decode step, and the clips that it returns, share a region that grows and never shrinks.
    """
    parameters = read_parameters(settings.repository, "decode")
    workers = int(parameters.get("workers", "0")) or available_cores()
    requests = int(parameters.get("max_waiting", "64")) + workers
    clip = largest_clip_bytes(settings.repository)
    return SHARED_MEMORY_FOR_BACKEND + requests * (settings.video_megabytes * 2**20 + settings.views * clip)


def memory_needed(settings: Settings) -> int:
    """MiB that the server may take on a CPU, in all.

    The memory of a run grows with its clips. OpenVINO in ONNX Runtime keeps that memory: up to ONNX Runtime 1.22 for
    each number of videos and clips, from 1.23 on for the largest run.
    """
    models = choose_models(settings.repository, settings.models)
    has_one_copy = not (number := re.match(r"(\d+)\.(\d+)", settings.release)) or (
        (int(number[1]), int(number[2])) >= RELEASE_WITH_ONE_COPY
    )
    networks = sum(
        run.megabytes
        if has_one_copy or not names_openvino(settings.repository, run.network)
        else run.megabytes_of_all_shapes
        for run in largest_runs(settings.repository, models)
    )
    return MEGABYTES_BESIDE_NETWORKS + networks + shared_memory_needed(settings) // 2**20


def memory_limit(cgroup: Path = CGROUP) -> int:
    """MiB that this container may use: the limit of its control group (version 1 or 2), or the machine's memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(int((cgroup / name).read_text()), machine) // 2**20
        except (OSError, ValueError):  # the file of the other version, or "max"
            continue
    return machine // 2**20
