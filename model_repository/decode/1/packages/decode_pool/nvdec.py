"""Decoding with NVDEC, the video decoder of NVIDIA's GPUs: which GPUs have it, and the processes that use it.

There are a few processes for each GPU, and each decodes many videos at a time. One process for each video would cost
too much: each has a context on the GPU, which takes half a GiB there.

    python -m decode_pool.nvdec    prints the number of usable GPUs, or what is missing, as JSON
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from clip_decode.limits import Limits

from .process import IMPORT_OWN_CODE, WorkerProcess, python, start_workers, worker_program
from .settings import PoolSettings

PACKAGE = "PyNvVideoCodec"
# What the package loads. A container gets the last two with the driver capability `video`.
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1")
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
_PROBE_SECONDS = 30
# NVDEC gets a third of a video's time limit, so that a CPU still has enough time after it.
_SHARE_OF_TIME = 3
# Starts that may fail at one step: another program may have taken the GPU's memory at that moment.
_FAILURES = 2


@dataclass(frozen=True)
class Gpus:
    """The GPUs whose NVDEC can be used.

    Attributes:
        devices: the name of each in CUDA_VISIBLE_DEVICES.
        missing: what is missing where there is none.
    """

    devices: tuple[str, ...]
    missing: str = ""


def find_gpus() -> Gpus:
    """Find the usable GPUs. Probes them in another process, because a loaded driver cannot be unloaded."""
    try:
        found = subprocess.run(
            [python(), "-m", "decode_pool.nvdec"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            env={**os.environ, **IMPORT_OWN_CODE},
        )
        # The package may print as it is imported.
        answer = json.loads(found.stdout.rpartition("\n")[2])
        count, missing = int(answer["count"]), str(answer["missing"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return Gpus((), f"looking for GPUs failed: {error}")
    named = [name for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name]
    return Gpus(tuple(named[:count]) if named else tuple(map(str, range(count))), missing)


def probe() -> tuple[int, str]:
    """How many GPUs can be used, and what is missing where there is none. Loads the driver."""
    if importlib.util.find_spec(PACKAGE) is None:
        return 0, f"the package {PACKAGE} is not installed"
    for name in LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return (
                0,
                f"{name} of NVIDIA's driver is not found (in a container: NVIDIA_DRIVER_CAPABILITIES must have video)",
            )
    try:
        importlib.import_module(PACKAGE)
    except Exception as error:  # "Driver version is too old", for example.
        # Of its advice, which has twenty lines, the first.
        return 0, f"{PACKAGE} cannot be imported: {(str(error).splitlines() or [type(error).__name__])[0]}"
    driver = ctypes.CDLL(LIBRARIES[0])
    count = ctypes.c_int()
    if status := driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0, f"NVIDIA's driver does not work here (CUDA error {status}; does nvidia-smi?)"
    if not count.value:
        return 0, "the driver finds no GPU"
    return count.value, ""


class NvdecProcess:
    """A process that decodes with NVDEC. The pool starts it, and starts it again when it dies.

    A step of the start at which the process dies or hangs twice is left out. So the kind of stream that it tried is
    left to CPUs, whatever the GPU says of itself.
    """

    def __init__(
        self,
        settings: PoolSettings,
        device: str,
        program: Sequence[str] = (),
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Not started yet.

        Args:
            settings: of the pool.
            device: the GPU, in CUDA_VISIBLE_DEVICES.
            program: what to run in place of nvdec_worker; it gets the settings and the steps to leave out ahead of
                start_worker's arguments.
            log: called with what each start has found.
        """
        self.streams = settings.nvdec_streams
        self._device = device
        self._program = [*(program or worker_program("nvdec_worker")), json.dumps(asdict(settings))]
        self._settings = replace(
            settings,
            max_decode_seconds=max(settings.max_decode_seconds // _SHARE_OF_TIME, 1),
            max_worker_megabytes=settings.max_worker_megabytes * self.streams,
        )
        self._workers: list[WorkerProcess] = []
        self._free: dict[int, WorkerProcess] = {}
        self._is_killed = False
        self._log, self._failures = log, Counter[str]()

    def start(self, limits: Limits) -> WorkerProcess:
        """Start the process; returns its first connection. The calling thread must outlive the process."""
        environment = {DEVICES_VARIABLE: self._device, "CUDA_CACHE_DISABLE": "1"}
        excluded = [step for step, count in self._failures.items() if count >= _FAILURES]
        program = [*self._program, json.dumps(excluded)]
        self.close_free()
        self._workers = start_workers(program, self._settings, limits, self.streams, environment)
        first = self._workers[0]
        if self._is_killed:
            first.kill()  # `kill` may have looked for it before.
        try:
            first.wait_until_ready()
        except BaseException as error:
            for worker in self._workers:
                worker.end()
            if first.step:
                self._failures[first.step] += 1
                error.add_note(f"GPU {self._device}: it was trying {first.step}")
            raise
        self._free = dict(enumerate(self._workers[1:], 1))
        with suppress(Exception):  # A log that cannot be written must not cost the process.
            self._log(f"NVDEC of GPU {self._device}: {first.summary}")
        return first

    def take(self, number: int) -> WorkerProcess | None:
        """One of the other connections, which the caller ends; None if it has been taken, or none is ready."""
        return self._free.pop(number, None)

    def kill(self) -> None:
        """Kill the process, also one that starts, from any thread. No other one starts."""
        self._is_killed = True
        for worker in self._workers[:1]:
            worker.kill()

    def close_free(self) -> None:
        """Close the connections that nobody has taken. The process is dead."""
        for number in range(self.streams):
            if (worker := self.take(number)) is not None:
                worker.end()


def nvdec_processes(
    settings: PoolSettings, gpus: Gpus, program: Sequence[str] = (), log: Callable[[str], None] = lambda line: None
) -> list[NvdecProcess]:
    """The processes for these GPUs. For program and log see NvdecProcess."""
    return [
        NvdecProcess(settings, device, program, log) for device in gpus.devices for _ in range(settings.nvdec_processes)
    ]


if __name__ == "__main__":
    found, missing = probe()
    sys.stdout.write("\n" + json.dumps({"count": found, "missing": missing}))
