"""What Prometheus reads of the decode step, on Triton's own metrics port."""

from __future__ import annotations

import threading
from typing import Any

from clip_decode.errors import error_classes

# What a video ends in where it is no error of clip_decode.
OTHER_OUTCOMES = ("ok", "cancelled", "expired")

# Seconds. The lowest holds a phone clip on a fast core, the highest what the time limit lets through.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class DecodeMetrics:
    """Counters and gauges; every method may be called from any thread.

    families: pb_utils.MetricFamily, which exists only inside Triton. Triton 2.51 has no histograms there, so the
    histogram is written as what Prometheus knows it by: counters named _bucket, _sum and _count.
    """

    def __init__(self, families: Any) -> None:
        self._lock = threading.Lock()

        # Kept, because a metric outlives its family only as an error.
        self._families: list[Any] = []

        def family(name: str, description: str, kind: Any) -> Any:
            self._families.append(families(name=f"clipserve_decode_{name}", description=description, kind=kind))
            return self._families[-1]

        counter, gauge = families.COUNTER, families.GAUGE
        self._outcomes = family("total", "Videos by outcome: ok, or the code of the error", counter)
        self._buckets = family("seconds_bucket", "Videos decoded within le seconds, the wait not counted", counter)
        self._sum = family("seconds_sum", "Seconds spent decoding", counter).Metric(labels={})
        self._count = family("seconds_count", "Videos decoded", counter).Metric(labels={})
        restarts = family("worker_restarts_total", "Decode workers replaced after their death", counter)
        self._restarts = restarts.Metric(labels={})
        decoded = family("decoded_total", "Videos decoded, by decoder", counter)
        self._by_decoder = {name: decoded.Metric(labels={"decoder": name}) for name in ("cpu", "nvdec")}
        declined = family("nvdec_declined_total", "Videos that NVDEC left to a CPU", counter)
        self._declined = declined.Metric(labels={})
        self._waiting = family("waiting", "Videos that wait to be decoded", gauge).Metric(labels={})
        self._by_outcome: dict[str, Any] = {}
        self._by_bound = {bound: self._buckets.Metric(labels={"le": f"{bound:g}"}) for bound in BUCKETS}
        self._everything = self._buckets.Metric(labels={"le": "+Inf"})
        # From the start: Prometheus' rate() sees nothing of a counter that comes into being at 1.
        for outcome in (*OTHER_OUTCOMES, *error_classes()):
            self.count_outcome(outcome, 0)

    def count_outcome(self, outcome: str, videos: int = 1) -> None:
        """Count a video that ended so."""
        with self._lock:
            if outcome not in self._by_outcome:
                self._by_outcome[outcome] = self._outcomes.Metric(labels={"outcome": outcome})
            self._by_outcome[outcome].increment(videos)

    def count_declined(self) -> None:
        """Count a video that NVDEC left to a CPU."""
        with self._lock:
            self._declined.increment(1)

    def observe(self, seconds: float, decoder: str) -> None:
        """Count a decode into the histogram."""
        with self._lock:
            self._by_decoder[decoder].increment(1)
            for bound, metric in self._by_bound.items():
                if seconds <= bound:
                    metric.increment(1)
            self._everything.increment(1)
            self._sum.increment(seconds)
            self._count.increment(1)

    def count_restart(self) -> None:
        """Count a worker that was replaced."""
        with self._lock:
            self._restarts.increment(1)

    def show_waiting(self, videos: int) -> None:
        """State the length of the queue."""
        with self._lock:
            self._waiting.set(videos)
