"""Whether a Triton that starts still does something.

Triton 2.51 may wait for ever for a process that it started. Docker restarts only a container that has ended.
"""

from __future__ import annotations

import os
import time

from clipserve_host.processes import processes_of

# While models load, Triton's processes compute, and TensorRT takes a whole core to build an engine. Idle ones take
# 0.2 s a minute (measured on an AMD EPYC).
STUCK_SECONDS = 300.0
STUCK_CPU_SECONDS = 3.0


class StartActivity:
    """The processor time of the Triton that this process has started."""

    def __init__(self, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._stuck_seconds = stuck_seconds
        self._active_at, self._cpu_seconds = time.monotonic(), 0.0

    def is_stuck(self) -> bool:
        """Whether it has computed less than STUCK_CPU_SECONDS for `stuck_seconds`. To be asked again and again."""
        cpu_seconds = sum(process.cpu_seconds for process in processes_of(os.getpid()))
        # A process that ends takes its time out of the sum.
        if abs(cpu_seconds - self._cpu_seconds) > STUCK_CPU_SECONDS:
            self._active_at, self._cpu_seconds = time.monotonic(), cpu_seconds
        return time.monotonic() > self._active_at + self._stuck_seconds
