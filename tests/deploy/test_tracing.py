"""A real Triton with the container's own command line sends its traces to a receiver of OTLP over HTTP."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clipserve import VideoClassifier
from tests.watching import HANG_SECONDS, wait_for

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"


class Receiver(ThreadingHTTPServer):
    """What a collector has at /v1/traces; the spans come as OTLP in JSON."""

    def __init__(self):
        self.spans, self.services = [], set()
        super().__init__(("127.0.0.1", 0), self.Handler)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
            for origin in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["resourceSpans"]:
                self.server.services |= {
                    about["value"]["stringValue"]
                    for about in origin["resource"]["attributes"]
                    if about["key"] == "service.name"
                }
                self.server.spans += [span for scope in origin["scopeSpans"] for span in scope["spans"]]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format, *arguments):
            pass

    def wait_for_traces(self, count):
        """Traces by id, each a dict of its spans by name, when so many came with all the spans of a request."""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            traces = {}
            for span in list(self.spans):
                traces.setdefault(span["traceId"], {}).setdefault(span["name"], span)
            whole = {number: spans for number, spans in traces.items() if "InferRequest" in spans}
            if len(whole) >= count:
                return whole
            assert time.monotonic() < deadline, f"{len(whole)} of {count} traces came"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def traced(start_server, receiver):
    """Every second request is traced."""
    return start_server(
        trace_url=f"http://127.0.0.1:{receiver.server_port}/v1/traces",
        trace_rate=2,
        # Triton sends what it has every five seconds; a test would rather not wait.
        triton_options=("--trace-config=opentelemetry,bsp_schedule_delay=100",),
    )


def test_the_spans_of_a_request_tell_its_steps_and_their_times(traced, receiver, bouncing):
    with VideoClassifier("motion", traced.grpc_url) as classifier:
        begun = time.time_ns()
        for _ in range(4):
            classifier.classify(bouncing)
        ended = time.time_ns()
    traces = receiver.wait_for_traces(2)
    assert len(traces) == 2, "one request in two is traced"
    assert receiver.services == {"clipserve"}
    for spans in traces.values():
        assert set(spans) == {"InferRequest", "motion", "decode", "motion_net", "compute"}
        assert "parentSpanId" not in spans["InferRequest"]
        assert spans["motion"]["parentSpanId"] == spans["InferRequest"]["spanId"]
        for step in ("decode", "motion_net"):
            assert spans[step]["parentSpanId"] == spans["motion"]["spanId"]
            assert {"key": "triton.model_name", "value": {"stringValue": step}} in spans[step]["attributes"]
            assert [event["name"] for event in spans[step]["events"]] == ["REQUEST_START", "QUEUE_START", "REQUEST_END"]
        times = [
            begun,
            *(int(spans[step]["startTimeUnixNano"]) for step in ("InferRequest", "motion", "decode", "motion_net")),
            *(int(spans[step]["endTimeUnixNano"]) for step in ("motion_net", "motion", "InferRequest")),
            ended,
        ]
        # Triton may note the end of a request after the client has its answer.
        assert times[:-1] == sorted(times[:-1])
        assert times[-2] < ended + HANG_SECONDS * 1e9


def test_the_trace_of_a_caller_goes_on_in_the_server(traced, receiver, bouncing):
    headers = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}

    def has_come() -> bool:
        """After another request: Triton does not send again what did not arrive."""
        classifier.classify(bouncing)
        return any(span["traceId"] == CALLER and span["name"] == "motion_net" for span in receiver.spans)

    with VideoClassifier("motion", traced.grpc_url, headers=headers) as classifier:
        assert wait_for(has_come)


def test_a_collector_that_is_away_costs_no_request(start_server, bouncing):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = start_server(
            trace_url=f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces",
            trace_rate=1,
            triton_options=("--trace-config=opentelemetry,bsp_schedule_delay=100",),
        )
        with VideoClassifier("motion", server.grpc_url) as classifier:
            for _ in range(20):
                assert classifier.classify(bouncing).top.label == "bouncing"
                time.sleep(0.02)
