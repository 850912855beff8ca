"""The machine that numbers were measured on, and what a measurement took of it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

# What decides about the speed of a network on a CPU: the widest vectors, and matrices in bf16.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe_machine(*packages: str) -> str:
    """Processor, cores, memory and the versions of `packages`, in one line."""
    processor, flags = _read_processor()
    words = [
        processor,
        f"{len(os.sched_getaffinity(0))} cores",
        " ".join(flag for flag in TELLING_FLAGS if flag in flags) or "no AVX2",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in packages),
    ]
    return ", ".join(words)


def _read_processor() -> tuple[str, set[str]]:
    name, flags = platform.processor(), set[str]()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    return name, flags


@dataclass(frozen=True)
class Usage:
    """Processor seconds since the machine started: of the processes this one started, and of all there are."""

    ours: float
    all: float

    @classmethod
    def now(cls) -> Usage:
        """What has been used until now."""
        busy = psutil.cpu_times()
        return cls(sum(_seconds(child) for child in started_processes()), busy.user + busy.nice + busy.system)


def started_processes() -> list[psutil.Process]:
    """The living processes that this one started, and those that they did."""
    return psutil.Process().children(recursive=True)


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
