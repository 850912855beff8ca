"""The machine that was measured on, and the processor time and memory that processes used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clipserve_server.packages import find_versions

if TYPE_CHECKING:
    import psutil

# The instructions that decide the speed of a network on a CPU.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe_machine(*packages: str) -> str:
    """Processor, cores, memory, Python and the versions of `packages` that are installed, in one line."""
    flags = _read_cpuinfo("flags").split()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return ", ".join(
        [
            processor_name(),
            f"{len(os.sched_getaffinity(0))} cores",
            " ".join(flag for flag in FLAGS if flag in flags) or "no AVX2",
            f"{memory:.0f} GiB",
            f"Python {platform.python_version()}",
            *(f"{package} {number}" for package, number in find_versions(packages).items()),
        ]
    )


def processor_name() -> str:
    """The name of the CPU."""
    return _read_cpuinfo("model name") or platform.processor()


def _read_cpuinfo(wanted: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == wanted:
            return value.strip()
    return ""


def process_tree(pid: int) -> Iterator[psutil.Process]:
    """The process and its living descendants."""
    import psutil

    try:
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def tree_seconds(pid: int) -> float:
    """Processor seconds of a process tree, with the descendants that have ended and were waited for."""
    import psutil

    total = 0.0
    for process in process_tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def own_seconds() -> float:
    """Processor seconds of this process alone."""
    times = os.times()
    return times.user + times.system


def machine_seconds() -> float:
    """Processor seconds that everything on this machine used, and that its hypervisor took away."""
    import psutil

    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def tree_bytes(pid: int) -> int:
    """Memory of a process tree: the sum of its proportional set sizes, so that shared memory counts once."""
    import psutil

    total = 0
    for process in process_tree(pid):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
