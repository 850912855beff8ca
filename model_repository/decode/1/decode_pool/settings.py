"""What the pool may use of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class PoolSettings:
    """Whole numbers, each configurable in the decode step's config under its name here.

    Attributes:
        workers: processes that decode, one video at a time each; 0 is one for each core this process may use.
        max_waiting: videos that may wait for a worker; one more is answered `busy`.
        max_waiting_megabytes: that these may have together; one video may always wait, however large.
        max_decode_seconds: for one video, after which its worker is killed.
        max_worker_megabytes: of memory that a worker may take for one video, on top of what it starts with.

    Raises:
        ValueError: a value is no whole number, or out of bounds.
    """

    workers: int = 0
    max_waiting: int = 64
    max_waiting_megabytes: int = 2048
    max_decode_seconds: int = 30
    max_worker_megabytes: int = 2048

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name == "workers" else 1
            if not least <= value <= 2**20:
                raise ValueError(f"{name} is {value}, but {least} to {2**20} is allowed")

    @classmethod
    def names(cls) -> list[str]:
        """The names a config may set."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> PoolSettings:
        """Read the settings that `config` names; the others keep their defaults."""
        try:
            return cls(**{name: int(config[name]) for name in cls.names() if name in config})
        except ValueError as error:
            raise ValueError(f"a setting of the decode pool is no whole number in its bounds: {error}") from error

    @property
    def worker_count(self) -> int:
        """How many workers to run."""
        return self.workers or available_cores()


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
