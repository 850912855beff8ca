"""What the model timeline publishes among Triton's metrics."""

from __future__ import annotations

import threading
from typing import Any

from decode_model.metrics import Outcomes

OTHER_OUTCOMES = ("ok", "cancelled")


class TimelineMetrics:
    """Counters and gauges that Prometheus reads at Triton's metrics port. Every method is thread-safe.

    Args:
        families: pb_utils.MetricFamily, which exists only inside Triton.
        max_timelines: timelines that may run at one time.
    """

    def __init__(self, families: Any, max_timelines: int) -> None:
        self._lock = threading.Lock()

        def family(name: str, description: str, kind: Any) -> Any:
            return families(name=f"clipserve_timeline_{name}", description=description, kind=kind)

        counter, gauge = families.COUNTER, families.GAUGE
        # Kept, because a metric whose family is gone raises errors.
        self._families = [
            family("total", "Timelines by outcome: ok, cancelled, or the code of the error", counter),
            family("windows_total", "Windows of timelines that were sent", counter),
            family("worker_restarts_total", "Decode processes of timelines replaced after their death", counter),
            family("running", "Timelines that run", gauge),
            family("limit", "Timelines that may run at one time", gauge),
        ]
        self.count_outcome = Outcomes(self._families[0], OTHER_OUTCOMES).count
        self._windows, self._restarts, self._running, self._limit = (f.Metric(labels={}) for f in self._families[1:])
        self._limit.set(max_timelines)

    def count_windows(self, windows: int) -> None:
        """Count windows that were sent."""
        with self._lock:
            self._windows.increment(windows)

    def count_restart(self) -> None:
        """Count a decode process that was replaced."""
        with self._lock:
            self._restarts.increment(1)

    def set_running(self, timelines: int) -> None:
        """Set how many timelines run."""
        with self._lock:
            self._running.set(timelines)
