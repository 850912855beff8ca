"""What a process and all that it started have used: processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil


def members(pid: int) -> Iterator[psutil.Process]:
    """The process and its living descendants."""
    try:
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def processor_seconds(pid: int) -> float:
    """User and system time of the tree, with the descendants that have ended and were waited for."""
    total = 0.0
    for process in members(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def resident_bytes(pid: int) -> int:
    """Proportional set sizes of the tree, summed: memory that processes share counts once."""
    total = 0
    for process in members(pid):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def busy_seconds() -> float:
    """Processor time that anything on this machine has used, and what the machine below it took away."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


@dataclass(frozen=True)
class Usage:
    """Processor seconds until now: of one tree, of the idle ones, of this process, of the whole machine."""

    tree: float
    idle: float
    own: float
    machine: float

    @classmethod
    def now(cls, pid: int, idle: list[int]) -> Usage:
        """Read it."""
        own = os.times()
        return cls(
            tree=processor_seconds(pid),
            idle=sum(map(processor_seconds, idle)),
            own=own.user + own.system,
            machine=busy_seconds(),
        )

    def since(self, before: Usage) -> Usage:
        """What was used in between."""
        return Usage(
            self.tree - before.tree, self.idle - before.idle, self.own - before.own, self.machine - before.machine
        )

    @property
    def others(self) -> float:
        """Of what takes no part in the measurement; never below zero, as the clocks tick apart."""
        return max(self.machine - self.tree - self.idle - self.own, 0.0)
