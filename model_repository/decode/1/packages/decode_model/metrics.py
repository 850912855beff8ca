"""Triton's metrics: what the decode step publishes there, and what it reads there about the networks' queues."""

from __future__ import annotations

import http.client
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from clip_decode.errors import error_classes

# Outcomes of a video that are no errors of clip_decode.
OTHER_OUTCOMES = ("ok", "cancelled", "expired")

# Seconds. A phone clip on a fast core takes less than the lowest; the time limit of a video is the highest.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Triton's default port. A server whose metrics are elsewhere sets this variable.
METRICS_VARIABLE, DEFAULT_URL = "CLIPSERVE_METRICS_URL", "http://127.0.0.1:8002/metrics"
TIMEOUT_SECONDS = 1.0  # for the whole page
# Another program's page can be endless; Triton's has 100 KiB with a hundred models.
MAX_PAGE_BYTES = 16 * 2**20
_PENDING_FAMILY = "nv_inference_pending_request_count"
_PENDING = re.compile(rf"^{_PENDING_FAMILY}" r'\{model="([^"]+)",[^}]*\} (\d+)', re.MULTILINE)


class Outcomes:
    """Counts by outcome, each from 0 on: Prometheus' rate() does not see the first count of one that appears with 1.

    Args:
        family: of the counters; pb_utils.MetricFamily.
        others: outcomes that are no errors of clip_decode.
    """

    def __init__(self, family: Any, others: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._counters = {name: family.Metric(labels={"outcome": name}) for name in (*others, *error_classes())}

    def count(self, outcome: str) -> None:
        """Count one more."""
        with self._lock:
            self._counters[outcome].increment(1)


class DecodeMetrics:
    """Counters and gauges that Prometheus reads at Triton's metrics port. Every method is thread-safe.

    families: pb_utils.MetricFamily, which exists only inside Triton. Triton 2.51 has no histograms there, so a
    histogram is written as the counters that Prometheus makes of one: _bucket, _sum and _count.
    """

    def __init__(self, families: Any) -> None:
        self._lock = threading.Lock()

        # Kept, because a metric whose family is gone raises errors.
        self._families: list[Any] = []

        def family(name: str, description: str, kind: Any) -> Any:
            self._families.append(families(name=f"clipserve_decode_{name}", description=description, kind=kind))
            return self._families[-1]

        counter, gauge = families.COUNTER, families.GAUGE
        outcomes = Outcomes(family("total", "Videos by outcome: ok, or the code of the error", counter), OTHER_OUTCOMES)
        self.count_outcome = outcomes.count
        buckets = family("seconds_bucket", "Videos decoded within le seconds, the wait not counted", counter)
        self._sum = family("seconds_sum", "Seconds spent decoding", counter).Metric(labels={})
        self._count = family("seconds_count", "Videos decoded", counter).Metric(labels={})
        restarts = family("worker_restarts_total", "Decode workers replaced after their death", counter)
        self._restarts = restarts.Metric(labels={})
        decoded = family("decoded_total", "Videos decoded, by decoder", counter)
        self._by_decoder = {name: decoded.Metric(labels={"decoder": name}) for name in ("cpu", "nvdec")}
        declined = family("nvdec_declined_total", "Videos that NVDEC left to a CPU", counter)
        self._declined = declined.Metric(labels={})
        self._waiting = family("waiting", "Videos that wait to be decoded", gauge).Metric(labels={})
        self._by_bound = {bound: buckets.Metric(labels={"le": f"{bound:g}"}) for bound in BUCKETS}
        self._all_seconds = buckets.Metric(labels={"le": "+Inf"})

    def count_declined(self) -> None:
        """Count a video that NVDEC left to a CPU."""
        with self._lock:
            self._declined.increment(1)

    def observe(self, seconds: float, decoder: str) -> None:
        """Add a decoded video to the histogram."""
        with self._lock:
            self._by_decoder[decoder].increment(1)
            for bound, metric in self._by_bound.items():
                if seconds <= bound:
                    metric.increment(1)
            self._all_seconds.increment(1)
            self._sum.increment(seconds)
            self._count.increment(1)

    def count_restart(self) -> None:
        """Count a worker that was replaced."""
        with self._lock:
            self._restarts.increment(1)

    def set_waiting(self, videos: int) -> None:
        """Set the length of the queue."""
        with self._lock:
            self._waiting.set(videos)


class MetricsPage:
    """Triton's metrics page.

    url: its address. By default CLIPSERVE_METRICS_URL, or Triton's default port. Raises ValueError for one that is
    no address.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url or os.environ.get(METRICS_VARIABLE, "") or DEFAULT_URL
        try:
            parts = urlsplit(self.url)
            self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        except ValueError as error:
            raise ValueError(f"{METRICS_VARIABLE} is {self.url}, which is not an address: {error}") from error

    def read_pending(self) -> Counter[str]:
        """How many requests wait for each model, over all its versions, by the model's name.

        Raises:
            OSError: no page can be read there, or it is not Triton's.
        """
        # Not urllib, which would send the request through a proxy of the environment.
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.sock = _connect(self._host, self._port)
            connection.request("GET", self._path)
            response = connection.getresponse()
            text = response.read(MAX_PAGE_BYTES).decode(errors="replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise OSError(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise OSError(f"{self.url}: HTTP {response.status}")
        if _PENDING_FAMILY not in text:
            raise OSError(f"{self.url}: the page has no {_PENDING_FAMILY}, so it is not Triton's")
        pending: Counter[str] = Counter()
        for model, count in _PENDING.findall(text):
            pending[model] += int(count)
        return pending


class _DeadlineSocket(socket.socket):
    """A socket with one deadline for all reads. A timeout alone starts again with each read."""

    deadline: float

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        """Raises TimeoutError."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*arguments, **options)


def _connect(host: str, port: int) -> _DeadlineSocket:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    plain = socket.create_connection((host, port), TIMEOUT_SECONDS)
    connected = _DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
    connected.deadline = deadline
    connected.settimeout(TIMEOUT_SECONDS)
    return connected
