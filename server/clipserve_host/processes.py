"""The processes of a Triton, as Linux shows them in /proc."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_STUB = "triton_python_b"  # the kernel keeps 15 letters of a name
_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process. state: R, S, D, T, Z... as in proc(5); Z is a dead one that no process has waited for."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    cpu_seconds: float

    @property
    def is_dead_stub(self) -> bool:
        """Whether it is a stub of the Python backend that has died.

        Triton 2.51 waits for ever for the first message of a stub, so the death of one before it is noticed here.
        A stub is a child of tritonserver, which leads the group. A stub's own children have its name until exec.
        """
        return self.state == "Z" and self.name == _STUB and self.parent == self.group


def processes_of(guard: int) -> list[Process]:
    """tritonserver, its stubs and their decode workers, of the Triton that the process `guard` runs."""
    processes = list(_read_all())
    servers = {process.pid for process in processes if process.parent == guard}
    # The guard gives them a process group of their own.
    return [process for process in processes if process.group in servers]


def _read_all() -> Iterator[Process]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = path.read_text(errors="replace").partition(" (")
        except OSError:
            continue
        # A name may have spaces and brackets. proc(5) numbers the fields; state is the third.
        name, _, after = rest.rpartition(") ")
        fields = after.split()
        ticks = int(fields[11]) + int(fields[12])
        yield Process(int(pid), name, fields[0], int(fields[1]), int(fields[2]), ticks / _TICKS)
