"""What the pool may use of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

DECODERS = ("auto", "cpu", "nvdec")
# That a process takes which decodes by NVDEC: it parses and scales. Measured with 3 such processes on 16 cores: 10
# workers beside them gave more videos a second of 1080p than 16, and as many of 256p (benchmarks/results/nvdec.md).
_CORES_OF_NVDEC = 2


@dataclass(frozen=True)
class PoolSettings:
    """Each configurable in the decode step's config under its name here: whole numbers, but for the decoder.

    Attributes:
        workers: processes that decode, one video at a time each; 0 is one for each core this process may use, with
            NVDEC two fewer for each of its processes, but half of them at least.
        max_waiting: videos that may wait for a worker; one more is answered `busy`.
        max_waiting_megabytes: that these may have together; one video may always wait, however large.
        max_decode_seconds: for one video, after which its worker is killed.
        max_worker_megabytes: of memory that a worker may take for one video, on top of what it starts with.
        decoder: "cpu"; "nvdec", which fails where there is none, and leaves to CPUs what it can not do; "auto" is
            nvdec where there is one.
        nvdec_processes: for each GPU.
        nvdec_streams: videos that such a process decodes at a time.
        nvdec_megabytes: of the GPU's memory that the decoders of such a process may take, beside its context.
        nvdec_min_pixels: of a picture; videos with fewer are left to CPUs.

    Raises:
        ValueError: a value is none of those allowed, or out of bounds.
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
            least, most = (0 if name == "workers" else 1), (2**26 if name == "nvdec_min_pixels" else 2**20)
            if name != "decoder" and not least <= value <= most:
                raise ValueError(f"{name} is {value}, but {least} to {most} is allowed")

    @classmethod
    def names(cls) -> list[str]:
        """The names a config may set."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> PoolSettings:
        """Read the settings that `config` names; the others keep their defaults."""
        values: dict[str, str | int] = {name: config[name] for name in cls.names() if name in config}
        try:
            return cls(**{name: value if name == "decoder" else int(value) for name, value in values.items()})  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"a setting of the decode pool is not one of those allowed: {error}") from error

    def worker_count(self, nvdec_processes: int = 0) -> int:
        """How many workers to run beside so many processes that decode by NVDEC."""
        cores = available_cores()
        return self.workers or max(cores - _CORES_OF_NVDEC * nvdec_processes, -(-cores // 2))


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: its affinity, and the quota of its container (docker run --cpus).

    cgroup: where its control groups are, of version 1 or 2.
    """
    cores = len(os.sched_getaffinity(0))
    for read in (_read_quota, _read_quota_v1):
        try:
            quota, period = read(cgroup)
        except (OSError, ValueError):  # another version's files, or a quota of "max"
            continue
        # A quota of -1 is none. Rounded up: half a core is still one worker.
        return max(1, min(cores, -(-quota // period))) if quota > 0 and period > 0 else cores
    return cores


def _read_quota(cgroup: Path) -> tuple[int, int]:
    """Microseconds of processor time, in so many of the clock."""
    quota, period = (cgroup / "cpu.max").read_text().split()
    return int(quota), int(period)


def _read_quota_v1(cgroup: Path) -> tuple[int, int]:
    folder = cgroup / "cpu"
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
