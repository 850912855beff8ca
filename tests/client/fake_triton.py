"""A server that speaks Triton's real gRPC interface.

Nothing of the client is patched: every test goes through a socket.
"""

import json
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from tests.watching import HANG_SECONDS, NEVER_SECONDS

ADMIN = {"triton-grpc-protocol-admin-key": "secret"}


@dataclass
class FakeModel:
    """One entry of the model repository."""

    ready: bool = True
    reason: str = ""
    steps: tuple[str, ...] = ()
    contract: str | None = None  # the parameter of its config


def default_models() -> dict[str, FakeModel]:
    return {
        "decode": FakeModel(),
        "x3d_m": FakeModel(steps=("decode", "x3d_m_net")),
        "x3d_m_net": FakeModel(),
        "mvit_base_16x4": FakeModel(steps=("decode", "mvit_base_16x4_net")),
        "mvit_base_16x4_net": FakeModel(),
    }


@dataclass
class FakeTriton(GRPCInferenceServiceServicer):
    """Answers as Triton does. A test sets the answers beforehand."""

    # Best class first, as Triton's classification extension writes them.
    classes: list[str] = field(
        default_factory=lambda: [
            "0.930000:5:archery",
            "0.040000:88:deadlifting",
            "0.020000:290:sharpening knives",
            "0.010000:115:eating ice cream",
        ]
    )
    features: Any = field(default_factory=lambda: np.arange(8, dtype=np.float32))
    report: bytes = json.dumps({"codec": "h264", "seconds": [0.0, 1.5], "truncated": False}).encode()
    models: dict[str, FakeModel] = field(default_factory=default_models)
    # What the next inferences fail with, and the message.
    failure: tuple[grpc.StatusCode, str] | None = None
    failures_by_content: dict[bytes, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    leave_out: str = ""  # an output not to answer with
    has_report: bool = True
    truncated: set[bytes] = field(default_factory=set)  # contents that the report calls damaged
    failures_left: int = 0  # so many inferences fail with `passing_failure` before others are answered
    passing_failure: tuple[grpc.StatusCode, str] = (grpc.StatusCode.UNAVAILABLE, "[busy] many videos are waiting")
    delays: dict[bytes, float] = field(default_factory=dict)  # seconds, by content
    delay: float = 0.0  # seconds, for every inference
    arrivals: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: int = 0
    counting: threading.Condition = field(default_factory=threading.Condition)
    release: threading.Event = field(default_factory=threading.Event)
    hold: bool = False  # let inferences wait for `release`
    held: set[bytes] = field(default_factory=set)  # let inferences of these videos wait for `release`
    stuck: set[str] = field(default_factory=set)  # methods' names that wait for `release`
    restricted: tuple[str, ...] = ()  # methods' names that only those with the key ADMIN may call
    closed_to: str = ""  # a method's name that fails with `failure`, too
    requests: list[Any] = field(default_factory=list)
    metadata: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def times_asked(self, method: str) -> int:
        """How many calls of this method have come."""
        return sum(name == method for name, _ in self.metadata)

    @property
    def videos(self) -> list[bytes]:
        """The bytes of each video that arrived."""
        contents = [request.raw_input_contents[0] for request in self.requests]
        for content in contents:
            assert struct.unpack("<I", content[:4])[0] == len(content) - 4
        return [content[4:] for content in contents]

    def wait_for_calls(self, count: int) -> None:
        """Return when so many inferences are in flight."""
        with self.counting:
            assert self.counting.wait_for(lambda: self.in_flight >= count, HANG_SECONDS)

    def ModelInfer(self, request, context):
        with self.counting:
            self.arrivals.append(time.monotonic())
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.counting.notify_all()
        try:
            return self._infer(request, context)
        finally:
            with self.counting:
                self.in_flight -= 1

    def _infer(self, request, context):
        self._note("ModelInfer", context)
        self.requests.append(request)
        context.add_callback(lambda: setattr(self, "cancelled", self.cancelled + (context.code() is None)))
        content = request.raw_input_contents[0][4:]
        if self.hold or content in self.held:
            self.release.wait(NEVER_SECONDS)
        time.sleep(self.delays.get(content, self.delay))
        with self.counting:
            fails, self.failures_left = self.failures_left > 0, max(self.failures_left - 1, 0)
        if fails:
            context.abort(*self.passing_failure)
        if failure := self.failure or self.failures_by_content.get(content):
            context.abort(*failure)
        if request.model_name not in self.models:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Request for unknown model: '{request.model_name}' is not found",
            )
        if not self.models[request.model_name].ready:
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"Request for unknown model: '{request.model_name}' has no available versions",
            )
        if not self.has_report and any(output.name == "REPORT" for output in request.outputs):
            # Word for word what Triton 2.51 says.
            message = f"unexpected inference output 'REPORT' for model '{request.model_name}'"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for output in request.outputs:
            if output.name == self.leave_out:
                continue
            if output.name == "SCORES":
                count = output.parameters["classification"].int64_param
                add_bytes(response, "SCORES", [text.encode() for text in self.classes[:count]])
            elif output.name == "FEATURES":
                array = np.asarray(self.features)
                kind = "FP32" if array.dtype == np.float32 else "FP64"
                response.outputs.add(name="FEATURES", datatype=kind, shape=[1, array.size])
                response.raw_output_contents.append(array.tobytes())
            elif output.name == "REPORT":
                report = self.report
                if content in self.truncated:
                    report = json.dumps(json.loads(report) | {"truncated": True}).encode()
                add_bytes(response, "REPORT", [report])
        return response

    def ModelReady(self, request, context):
        self._note("ModelReady", context)
        model = self.models.get(request.name)
        return service_pb2.ModelReadyResponse(ready=model is not None and model.ready)

    def ModelConfig(self, request, context):
        self._note("ModelConfig", context)
        response = service_pb2.ModelConfigResponse()
        response.config.name = request.name
        model = self.models.get(request.name)
        if model is None:
            # Word for word what Triton 2.51 says.
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        for step in model.steps:
            response.config.ensemble_scheduling.step.add(model_name=step)
        if model.contract is not None:
            response.config.parameters["contract"].string_value = model.contract
        return response

    def RepositoryIndex(self, request, context):
        self._note("RepositoryIndex", context)
        response = service_pb2.RepositoryIndexResponse()
        for name, model in self.models.items():
            state = "READY" if model.ready else "UNAVAILABLE"
            response.models.add(name=name, version="1", state=state, reason=model.reason)
        return response

    def _note(self, method: str, context: Any) -> None:
        self.metadata.append((method, dict(context.invocation_metadata())))
        if method in self.stuck:
            self.release.wait(NEVER_SECONDS)
        if method in self.restricted and not ADMIN.items() <= self.metadata[-1][1].items():
            # Word for word what Triton 2.51 says.
            context.abort(
                grpc.StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{next(iter(ADMIN))}'"
            )
        if self.failure and self.closed_to == method:
            context.abort(*self.failure)


def add_bytes(response: Any, name: str, items: list[bytes]) -> None:
    response.outputs.add(name=name, datatype="BYTES", shape=[1, len(items)])
    response.raw_output_contents.append(b"".join(struct.pack("<I", len(item)) + item for item in items))


def start_server(triton: FakeTriton, *, port: int = 0, credentials: Any = None) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 2**31 - 1)])
    add_GRPCInferenceServiceServicer_to_server(triton, server)
    if credentials is None:
        port = server.add_insecure_port(f"localhost:{port}")
    else:
        port = server.add_secure_port(f"localhost:{port}", credentials)
    server.start()
    triton.url = f"localhost:{port}"
    return server


def urls(tritons: Sequence[FakeTriton]) -> list[str]:
    """Where they listen."""
    return [triton.url for triton in tritons]


def shares(tritons: Sequence[FakeTriton]) -> list[int]:
    """How many requests each has got."""
    return [len(triton.requests) for triton in tritons]


def check_even(counts: Sequence[int]) -> None:
    """The load of equal members is even within 20 %."""
    mean = sum(counts) / len(counts)
    assert all(abs(count - mean) <= 0.2 * mean for count in counts), counts
