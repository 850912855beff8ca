"""What makes a server slow, short of GPU memory, or unusable soon. The start and `check` say it; the server starts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

from clipserve_container.certificates import day, read_expiry
from clipserve_container.memory import SERVER_GPU_MEGABYTES, network_gpu_gigabytes, nvdec_gpu_megabytes
from clipserve_container.repository import PublicModel, RepositoryError, choose_models
from clipserve_container.settings import Settings
from clipserve_host.device_fit import find_misfit

QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
QUERY_SECONDS = 20
NOTICE_DAYS = 30
LEAST_GIGABYTES = 5  # of --gpu-memory: weights and libraries take 4


def find_notices(settings: Settings) -> list[str]:
    """A message for each. The settings have no problem, see preflight."""
    try:
        models = choose_models(settings.repository, settings.models)
        return [*check_expiry(settings), *check_targets(settings, models), *check_gpu_memory(settings, models)]
    except (OSError, ValueError, RepositoryError):
        return []  # the start reports it


def check_expiry(settings: Settings) -> Iterator[str]:
    """The server's certificate is valid for some time."""
    if settings.tls == "off" or (expiry := read_expiry(settings.server_certificate)) is None:
        return
    if expiry < time.time() + NOTICE_DAYS * 86400:
        yield f"{settings.server_certificate.name} expires on {day(expiry)}: make a new one, and restart the server"


def check_targets(settings: Settings, models: list[PublicModel]) -> Iterator[str]:
    """Networks run on the kind of device that they were exported for."""
    device = "cpu" if settings.gpu == "none" else "gpu"
    for step in _steps(models):
        for record in sorted((settings.repository / step).glob("[1-9]*/export.json")):
            if misfit := find_misfit(record, device):
                yield misfit.replace("clipserve export", "docker compose run --rm export")


def read_gpu_megabytes() -> list[int]:
    """MiB of each GPU; empty where nvidia-smi does not say."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True)
        return [int(line) for line in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def check_gpu_memory(
    settings: Settings, models: list[PublicModel], read: Callable[[], list[int]] = read_gpu_megabytes
) -> Iterator[str]:
    """A GPU has the memory for the largest runs of its networks and for NVDEC."""
    if settings.gpu == "none":
        return
    nvdec = nvdec_gpu_megabytes(settings)
    for gpu, megabytes in enumerate(read()):
        sizes = {step: network_gpu_gigabytes(settings.repository, step, gpu) for step in _steps(models)}
        names = [step.removesuffix("_net") for step, gigabytes in sizes.items() if gigabytes]
        needed = SERVER_GPU_MEGABYTES + nvdec + sum(sizes.values()) * 1024
        if not names or needed <= megabytes:
            continue
        share = (megabytes - SERVER_GPU_MEGABYTES - nvdec) // 1024 // len(names)
        remedy = (
            f"docker compose run --rm export --configs {names[0]} --gpu-memory {share}, and so on,"
            if share >= LEAST_GIGABYTES
            else "serve fewer models (CLIPSERVE_MODELS), or keep them apart (--gpus)"
        )
        yield (
            f"GPU {gpu} has {megabytes} MiB, but the largest runs of {', '.join(names)} may take"
            f" {sum(sizes.values()) * 1024} MiB there (--gpu-memory), NVDEC {nvdec} MiB, and Triton"
            f" {SERVER_GPU_MEGABYTES} MiB; a request for which there is no memory fails: {remedy} or lower"
            " nvdec_processes or nvdec_megabytes of the decode step"
        )


def _steps(models: list[PublicModel]) -> list[str]:
    return list(dict.fromkeys(step for model in models for step in model.steps))
