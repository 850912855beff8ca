"""The processes in which NVDEC decodes: a few a GPU, each with many videos at a time.

Not a process for each video: one has a context on the GPU, which takes half a GiB there.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from clip_decode.limits import Limits
from decode_pool.process import IMPORT_OWN_CODE, WorkerProcess, python, start_workers
from decode_pool.settings import PoolSettings

DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
_LOOK_SECONDS = 30
# NVDEC has a part of a video's time, so that enough is left for a CPU.
_SHARE_OF_TIME = 3


@dataclass(frozen=True)
class Gpus:
    """The GPUs whose NVDEC can be used.

    Attributes:
        devices: what CUDA_VISIBLE_DEVICES calls each.
        missing: where there is none, what is missing.
    """

    devices: tuple[str, ...]
    missing: str = ""


class NvdecProcess:
    """One such process, which its pool starts, and starts anew when it dies."""

    def __init__(self, settings: PoolSettings, device: str, program: Sequence[str] = ()) -> None:
        """program: what to run, in place of the worker; it is given one argument more than start_worker says."""
        self.streams = settings.nvdec_streams
        self._device = device
        self._program = [*(program or nvdec_worker()), json.dumps(asdict(settings))]
        self._settings = replace(
            settings,
            max_decode_seconds=max(settings.max_decode_seconds // _SHARE_OF_TIME, 1),
            max_worker_megabytes=settings.max_worker_megabytes * self.streams,
        )
        self._workers: list[WorkerProcess] = []

    def start(self, limits: Limits) -> WorkerProcess:
        """Start it; the first of its workers. To be called by one thread, which outlives the process."""
        environment = {DEVICES_VARIABLE: self._device, "CUDA_CACHE_DISABLE": "1"}
        workers = start_workers(self._program, self._settings, limits, self.streams, environment)
        try:
            workers[0].wait_until_ready()
        except BaseException:
            for worker in workers:
                worker.end()
            raise
        self._workers = workers
        return workers[0]

    def worker(self, number: int) -> WorkerProcess | None:
        """One of its workers, if it lives."""
        workers = self._workers
        return workers[number] if workers and workers[number].is_alive else None


def nvdec_worker() -> list[str]:
    """The program that decodes by NVDEC."""
    return [python(), "-X", "faulthandler", "-m", "decode_pool.nvdec_worker"]


def find_gpus() -> Gpus:
    """Look, in a process of its own, which GPUs can be used: a driver that is loaded stays."""
    try:
        found = subprocess.run(
            [python(), "-m", "decode_pool.gpus"],
            capture_output=True,
            text=True,
            timeout=_LOOK_SECONDS,
            env={**os.environ, **IMPORT_OWN_CODE},
        )
        answer = json.loads(found.stdout)
        count, missing = int(answer["count"]), str(answer["missing"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return Gpus((), f"looking for GPUs failed: {error}")
    named = [name for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name]
    return Gpus(tuple(named[:count]) if named else tuple(map(str, range(count))), missing)


def nvdec_processes(settings: PoolSettings, gpus: Gpus, program: Sequence[str] = ()) -> list[NvdecProcess]:
    """The processes for these GPUs."""
    return [NvdecProcess(settings, device, program) for device in gpus.devices for _ in range(settings.nvdec_processes)]
