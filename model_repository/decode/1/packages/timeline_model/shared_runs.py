"""How many windows share a run of a network: only as many as get the very answers that each gets alone.

Whether that is so depends on the runtime and the shape. OpenVINO, as the embedded server runs it, gives equal bits for
any number of clips; LibTorch on the same CPU does not (measured with `motion`). So a number of windows is tried before
it is used: the same windows run together and one by one, and all bits are compared.
"""

from __future__ import annotations

import threading


class SharedRuns:
    """The number of windows for clips of one shape. Every method is thread-safe.

    Args:
        most: how many windows a run takes.
        budget_seconds: how long a run may take before fewer windows share it.
    """

    def __init__(self, most: int, budget_seconds: float) -> None:
        self._most, self._budget = most, budget_seconds
        self._size = 1  # a power of two that is used
        self._equal = 1  # the largest that has been tried, and gave equal bits
        self._trial: int | None = None  # the double of it, which is to be tried
        self._lock = threading.Lock()

    @property
    def wanted(self) -> int:
        """How many windows to collect, where they wait."""
        with self._lock:
            return self._trial or self._size

    def take_trial(self, windows: int) -> bool:
        """Whether to try so many windows together now. Then call `end_trial`."""
        with self._lock:
            if self._trial != windows:
                return False
            self._trial = None
            return True

    def end_trial(self, windows: int, *, is_equal: bool) -> None:
        """Windows were tried together: whether they got the same bits as one by one."""
        with self._lock:
            if is_equal:
                self._size = self._equal = windows
            else:
                self._most = windows // 2

    def size_for(self, windows: int) -> int:
        """How many of so many windows to run together."""
        with self._lock:
            return self._size if windows >= self._size else 1

    def observe(self, windows: int, seconds: float) -> None:
        """A run with so many windows took so long. While other requests use the network, that is longer."""
        with self._lock:
            if seconds > self._budget and windows > 1:
                self._size, self._trial = windows // 2, None
            elif windows == self._size and 2 * seconds <= self._budget and 2 * windows <= self._most:
                if windows < self._equal:
                    self._size = 2 * windows
                else:
                    self._trial = 2 * windows
