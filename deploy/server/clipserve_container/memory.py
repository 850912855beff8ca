"""How much memory the server needs: shared memory for the decode step, and memory of CPU or GPU for the networks."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clipserve_container.repository import PublicModel, choose_models, names_openvino, read_parameters
from clipserve_container.settings import Settings
from clipserve_host.cores import available_cores
from clipserve_host.decode_step import MAX_CLIPS, MAX_WAITING, NVDEC, shared_memory_bytes
from clipserve_host.gpu_devices import available_gpus

CGROUP = Path("/sys/fs/cgroup")
# From this release on (ONNX Runtime 1.23) OpenVINO keeps the memory of its largest run; before, that of every shape.
RELEASE_WITH_ONE_COPY = (25, 8)
# MiB for the server itself, and for decode workers with ordinary videos.
MEGABYTES_BESIDE_NETWORKS = 2048
# MiB of each GPU: what Triton takes for itself, and the context of an NVDEC process. On an H100 586, and 617 by the
# figures of benchmarks/results/nvdec.md.
SERVER_GPU_MEGABYTES, CONTEXT_MEGABYTES = 600, 640
# The GPUs of the host. Every container sees them, also one without a GPU.
HOST_GPUS = Path("/proc/driver/nvidia/gpus")
_GPUS = re.compile(r"^\s+gpus: (\d+)", re.MULTILINE)
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
        output = _read_clip_output(repository, model)
        for step in model.steps:
            megabytes = read_parameters(repository, step).get("clip_megabytes")
            if output and megabytes:
                most = _MAX_BATCH.search((repository / step / "config.pbtxt").read_text())
                clips = int(decode.get(f"MAX_{output}", MAX_CLIPS))
                runs.append(LargestRun(step, int(most[1]) if most else 1, clips, int(megabytes)))
    return runs


def largest_clip_bytes(repository: Path, models: list[PublicModel]) -> int:
    """Bytes of the largest clip that the decode step makes for `models`: frames x crop x crop x 3."""
    decode = read_parameters(repository, "decode")
    outputs = filter(None, {_read_clip_output(repository, model) for model in models})
    clips = [json.loads(decode[output]) for output in outputs]
    return max((clip["frames"] * clip["crop"] ** 2 * 3 for clip in clips), default=0)


def _read_clip_output(repository: Path, model: PublicModel) -> str | None:
    """The output of the decode step that this ensemble takes."""
    output = re.search(r'key: "(CLIP_[^"]+)"', (repository / model.name / "config.pbtxt").read_text())
    return output[1] if output else None


def shared_memory_needed(settings: Settings, gpus: int | None = None) -> int:
    """Bytes of /dev/shm for as many requests as may wait.

    gpus: of the server's container. None: those that there are. Raises RepositoryError when there is no model.
    """
    models = choose_models(settings.repository, settings.models)
    parameters = read_parameters(settings.repository, "decode")
    workers = int(parameters.get("workers", "0")) or available_cores()
    requests = int(parameters.get("max_waiting", MAX_WAITING)) + workers
    if settings.gpu == "required":
        processes, streams, _ = read_nvdec(settings)
        requests += (count_gpus() if gpus is None else gpus) * processes * streams
    clip = largest_clip_bytes(settings.repository, models)
    video = settings.video_megabytes * 2**20
    return shared_memory_bytes(requests, video_bytes=video, views=settings.views, clip_bytes=clip)


def count_gpus(host: Path = HOST_GPUS) -> int:
    """The GPUs of this container; those of the host in the container that only checks, which has none."""
    return available_gpus() or len(list(host.glob("*")))


def nvdec_gpu_megabytes(settings: Settings) -> int:
    """MiB of each GPU that NVDEC may take: the contexts of its processes, and their decoders."""
    processes, _, megabytes = read_nvdec(settings)
    return processes * (CONTEXT_MEGABYTES + megabytes)


def read_nvdec(settings: Settings) -> tuple[int, int, int]:
    """NVDEC's processes for each GPU, videos at a time in each, and MiB of the GPU for the decoders of each."""
    if settings.decoder == "cpu":
        return 0, 0, 0
    parameters = read_parameters(settings.repository, "decode")
    processes, streams, megabytes = (int(parameters.get(name, default)) for name, default in NVDEC.items())
    return processes, streams, megabytes


def network_gpu_gigabytes(repository: Path, network: str, gpu: int) -> int:
    """GiB of this GPU that a network exported for GPUs may take, by `--gpu-memory`; 0 where it does not run there."""
    config = (repository / network / "config.pbtxt").read_text()
    chosen = [int(number) for number in _GPUS.findall(config)]
    if chosen and gpu not in chosen:
        return 0
    return int(read_parameters(repository, network).get("gpu_gigabytes", "0"))


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
