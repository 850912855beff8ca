"""What the decode step publishes on Triton's metrics page, and what it reads there."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from clip_decode.errors import error_classes
from decode_model import metrics
from decode_model.metrics import DecodeMetrics, MetricsPage
from tests.watching import at_once

PAGE = """\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="decode",version="1"} 1
nv_inference_pending_request_count{model="small_net",version="1"} 3
nv_inference_pending_request_count{model="small_net",version="2"} 4
nv_inference_request_success{model="small_net",version="1"} 99
"""


class Families:
    """pb_utils.MetricFamily, which exists only inside Triton: the values of all metrics, by family and labels."""

    COUNTER, GAUGE = "counter", "gauge"

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}

    def __call__(self, *, name: str, description: str, kind: str) -> Any:
        return SimpleNamespace(Metric=lambda labels: self.add(name, labels))

    def add(self, family: str, labels: dict[str, str]) -> Any:
        key = family, ",".join(labels.values())
        assert key not in self.values
        self.values[key] = 0

        def increment(amount: float) -> None:
            self.values[key] += amount

        return SimpleNamespace(increment=increment)

    def family(self, name: str) -> dict[str, float]:
        return {labels: value for (family, labels), value in self.values.items() if family == name}


def test_every_outcome_is_counted_from_zero_on() -> None:
    """Prometheus' rate() does not see a first failure that appears together with its counter."""
    families = Families()
    counters = DecodeMetrics(families)
    outcomes = ["ok", "cancelled", "expired", *error_classes()]
    assert families.family("clipserve_decode_total") == dict.fromkeys(outcomes, 0)
    for outcome in outcomes:
        counters.count_outcome(outcome)
    assert families.family("clipserve_decode_total") == dict.fromkeys(outcomes, 1)


@pytest.fixture
def page() -> Iterator[str]:
    """The address of PAGE."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in ("/metrics", "/other") else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode() if self.path == "/metrics" else b"go_goroutines 7\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_is_read_past_a_proxy_and_counts_over_all_versions(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("CLIPSERVE_METRICS_URL", f"{page}/metrics")
    assert MetricsPage().read_pending() == {"decode": 1, "small_net": 7}


def test_a_page_that_cannot_be_read_is_an_os_error_with_its_address(page: str) -> None:
    for url in (f"{page}/elsewhere", "http://127.0.0.1:1/metrics", f"http://{'a' * 64}.invalid/metrics"):
        with pytest.raises(OSError, match=url):
            MetricsPage(url).read_pending()


@pytest.mark.parametrize("begin", ["", "HTTP/1.1 200 OK\r\n\r\n"])
def test_a_page_that_comes_byte_by_byte_is_given_up(begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "TIMEOUT_SECONDS", 0.3)
    given_up = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(begin.encode())
            while not given_up.wait(0.05):
                connection.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener], daemon=True)
        thread.start()
        try:
            with at_once(), pytest.raises(OSError, match="timed out"):
                MetricsPage(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics").read_pending()
        finally:
            given_up.set()
            thread.join()


def test_the_page_of_another_program_is_not_taken_for_an_empty_queue(page: str) -> None:
    with pytest.raises(OSError, match="is not Triton's"):
        MetricsPage(f"{page}/other").read_pending()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/metrics", "http://127.0.0.1:port/metrics", "http://[::1/"])
def test_an_address_that_is_none_is_reported_when_the_model_loads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSERVE_METRICS_URL", url)
    with pytest.raises(ValueError, match="CLIPSERVE_METRICS_URL"):
        MetricsPage()
