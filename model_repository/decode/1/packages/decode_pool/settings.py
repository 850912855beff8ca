"""The settings of the decode pool: what it may use of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DECODERS = ("auto", "cpu", "nvdec")
# Cores that each NVDEC process takes to parse and scale. Measured with 3 such processes on 16 cores: 10 workers beside
# them gave more videos a second of 1080p than 16, and as many of 256p (benchmarks/results/nvdec.md).
_CORES_OF_NVDEC = 2
# Zero lets the server choose.
_FROM_ZERO = ("workers", "nvdec_min_pixels")
# The files with the quota and the period of a control group, of version 2 and of version 1.
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


@dataclass(frozen=True)
class PoolSettings:
    """Each is a parameter of the same name in the decode step's config. All but `decoder` are whole numbers.

    Attributes:
        workers: processes that decode, one video at a time each. 0 is one for each core that this process may use,
            two fewer for each NVDEC process, but half of the cores at least.
        max_waiting: how many videos may wait for a worker; the next one is answered `busy`.
        max_waiting_megabytes: how many MiB these may have together; one video may always wait, whatever its size.
        max_decode_seconds: time limit for one video; its worker is killed after it.
        max_worker_megabytes: memory in MiB that a worker may take for one video, on top of what it starts with.
        decoder: "cpu"; "nvdec", which leaves to CPUs what it cannot decode, and fails on a machine without NVDEC;
            "auto", which is nvdec on a machine that has it.
        nvdec_processes: how many processes for each GPU.
        nvdec_streams: how many videos such a process decodes at a time.
        nvdec_megabytes: MiB of GPU memory that the decoders of such a process may take, beside its context.
        nvdec_min_pixels: pixels of a picture; CPUs decode videos with fewer. 0: each process measures it at its start.

    Raises:
        ValueError: a value is not allowed, or out of bounds.
    """

    workers: int = 0
    max_waiting: int = 64
    max_waiting_megabytes: int = 2048
    max_decode_seconds: int = 30
    max_worker_megabytes: int = 2048
    decoder: str = "auto"
    nvdec_processes: int = 3
    nvdec_streams: int = 6
    nvdec_megabytes: int = 2048
    nvdec_min_pixels: int = 1

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder is {self.decoder!r}, but {', '.join(DECODERS)} are allowed")
        for name, value in asdict(self).items():
            least, most = int(name not in _FROM_ZERO), (2**26 if name == "nvdec_min_pixels" else 2**20)
            if name != "decoder" and not least <= value <= most:
                raise ValueError(f"{name} is {value}, but {least} to {most} is allowed")

    @classmethod
    def names(cls) -> list[str]:
        """The parameters that a config may set."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> PoolSettings:
        """Read the settings that are in `config`; the others keep their defaults."""
        values: dict[str, str | int] = {name: config[name] for name in cls.names() if name in config}
        try:
            return cls(**{name: value if name == "decoder" else int(value) for name, value in values.items()})  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"a setting of the decode pool is not allowed: {error}") from error

    def worker_count(self, nvdec_processes: int = 0) -> int:
        """How many workers to run beside this many NVDEC processes."""
        cores = available_cores()
        return self.workers or max(cores - _CORES_OF_NVDEC * nvdec_processes, -(-cores // 2))


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use, by its affinity and its container's quota (docker run --cpus).

    cgroup: the folder of its control groups, version 1 or 2.
    """
    cores = len(os.sched_getaffinity(0))
    for names in _QUOTAS:
        try:
            quota, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
        except (OSError, ValueError):  # the files of the other version, or a quota of "max"
            continue
        # A quota of -1 means none. Rounded up, because half a core still needs a worker.
        return max(1, min(cores, -(-quota // period))) if quota > 0 and period > 0 else cores
    return cores
