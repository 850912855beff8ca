"""A server that speaks Triton's real gRPC interface and answers timelines as the model `timeline` does."""

import json
import struct
import threading
import time
from collections.abc import Callable
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

from tests.watching import wait_for

LABELS = ("resting", "running", "jumping", "swimming")


@dataclass
class FakeTimelines(GRPCInferenceServiceServicer):
    """Answers windows of one second each. A test sets the answers beforehand.

    The score of label k in window i is largest for k = tops[i % len(tops)].
    """

    windows: int = 10
    windows_by_content: dict[bytes, int] = field(default_factory=dict)
    tops: tuple[int, ...] = (0, 0, 1, 1, 1, 2, 2, 2, 2, 3)
    per_response: int = 3
    known_total: bool = True
    # After this many responses of a stream, once for each entry: a message, or a status that breaks the connection.
    failures: list[tuple[int, str | grpc.StatusCode]] = field(default_factory=list)
    failures_by_content: dict[bytes, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)  # end the stream without a last response after so many responses
    change: Callable[[dict[str, Any]], None] = lambda _: None  # of each window's record
    models: tuple[str, ...] = ("decode", "x3d_m", "x3d_m_net", "timeline")
    signs_of_life: int = 0  # responses without windows before a broken connection, one each tenth of a second
    hold_after: int | None = None  # responses; then wait for `release`
    honours_acknowledgements: bool = True

    requests: list[Any] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0  # windows
    most_ahead: int = 0
    running: int = 0
    most_running: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""
    running_server: Any = None

    def parameters(self, number: int = -1) -> dict[str, Any]:
        """Those of a request for windows."""
        found = self.requests[number].parameters
        return {name: getattr(found[name], found[name].WhichOneof("parameter_choice")) for name in found}

    @property
    def videos(self) -> list[bytes]:
        return [request.raw_input_contents[0][4:] for request in self.requests]

    @property
    def names(self) -> list[str]:
        """Of the requests with a video, those of the timelines."""
        return [self.parameters(number)["timeline"] for number, video in enumerate(self.videos) if video]

    def ModelStreamInfer(self, requests, context):
        self.metadata.append(dict(context.invocation_metadata()))
        request = next(requests)
        self.requests.append(request)
        assert struct.unpack("<I", request.raw_input_contents[0][:4])[0] == len(self.videos[-1])
        state = {"acknowledged": self.parameters()["first_window"]}
        reader = threading.Thread(target=self._read_acknowledgements, args=(requests, request, state), daemon=True)
        reader.start()
        gone = threading.Event()
        context.add_callback(gone.set)
        with self.changed:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            yield from self._answer(request, context, state, gone)
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()
            if gone.is_set():
                self.ended.set()

    def _answer(self, request, context, state, gone):
        content = request.raw_input_contents[0][4:]
        parameters = self.parameters(self.requests.index(request))
        first = parameters["first_window"]
        total = self.windows_by_content.get(content, self.windows)
        is_refused = bool(self.failures) and self.failures[0][0] == 0 and isinstance(self.failures[0][1], str)
        if not content and not is_refused:
            yield fail("[not-a-video] the file is empty")
            yield self._end()
            return
        failure = self.failures.pop(0) if self.failures else None
        cut = self.cut.pop(0) if self.cut else None
        if "timeline" not in self.models:
            yield fail("Request for unknown model: 'timeline' is not found")
            return
        for _ in range(self.signs_of_life if failure and not isinstance(failure[1], str) else 0):
            time.sleep(0.1)
            yield service_pb2.ModelStreamInferResponse()
        for number, start in enumerate([*range(first, total, self.per_response), None]):
            if failure and number == failure[0]:
                if isinstance(failure[1], str):
                    yield fail(failure[1])
                    yield self._end()
                    return
                context.abort(failure[1], "broken")
            if cut == number:
                return
            if self.hold_after == number:
                while not (self.release.wait(0.02) or gone.is_set()):
                    pass
            if start is None:
                break
            indices = range(start, min(start + self.per_response, total))
            self._wait_for_room(parameters, state, start, gone)
            if gone.is_set():
                return
            self.sent += len(indices)
            self.most_ahead = max(self.most_ahead, indices[-1] + 1 - state["acknowledged"])
            yield self._make_response(parameters, indices, total)
        if text := self.failures_by_content.get(content):
            yield fail(text)
        yield self._end()

    def _wait_for_room(self, parameters, state, start, gone):
        with self.changed:
            while (
                self.honours_acknowledgements
                and start - state["acknowledged"] >= parameters["max_unacknowledged"]
                and not gone.is_set()
            ):
                self.changed.wait(0.05)

    def _read_acknowledgements(self, requests, first, state):
        try:
            for request in requests:
                parameters = request.parameters
                assert request.raw_input_contents[0] == bytes(4)
                assert parameters["acknowledge"].string_param == first.parameters["timeline"].string_param
                with self.changed:
                    state["acknowledged"] = parameters["windows"].int64_param
                    self.acknowledged.append(state["acknowledged"])
                    self.changed.notify_all()
        except grpc.RpcError:
            pass  # the client has gone

    def _make_response(self, parameters, indices, total):
        response = service_pb2.ModelStreamInferResponse()
        inner = response.infer_response
        inner.model_name, inner.id = "timeline", "windows"
        scores = np.array([self.score(index) for index in indices], np.float32)
        records = []
        for index, row in zip(indices, scores, strict=True):
            order = np.argsort(-row, kind="stable")[: parameters["top_k"]]
            record = {
                "index": index,
                "start_seconds": float(index * parameters["step_seconds"]),
                "end_seconds": float(index * parameters["step_seconds"] + parameters["window_seconds"]),
                "start_frame": index * 25,
                "end_frame": index * 25 + 50,
                "top": [[float(row[k]), int(k), LABELS[k]] for k in order],
                "report": {"policy": "uniform"},
            }
            self.change(record)
            records.append(record)
        add(inner, "WINDOWS", "BYTES", [len(records)], pack([json.dumps(record).encode() for record in records]))
        add(inner, "SCORES", "FP32", scores.shape, scores.tobytes())
        if parameters["features"]:
            features = np.array([np.arange(8) + index for index in indices], np.float32)
            add(inner, "FEATURES", "FP32", features.shape, features.tobytes())
        progress = {
            "windows_total": total if self.known_total else None,
            "duration_seconds": total * parameters["step_seconds"],
            "truncated": False,
            "model_version": None,
            "video": {"codec": "h264", "fps": 25.0},
        }
        add(inner, "PROGRESS", "BYTES", [1], pack([json.dumps(progress).encode()]))
        return response

    def score(self, index: int) -> list[float]:
        """The scores of the labels in a window."""
        scores = [0.05, 0.04, 0.03, 0.02]
        scores[self.tops[index % len(self.tops)]] = 0.8
        return scores

    def _end(self):
        response = service_pb2.ModelStreamInferResponse()
        response.infer_response.id = "windows"
        response.infer_response.parameters["triton_final_response"].bool_param = True
        return response

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)

    def RepositoryIndex(self, request, context):
        response = service_pb2.RepositoryIndexResponse()
        for name in self.models:
            response.models.add(name=name, version="1", state="READY")
        return response


def fail(text: str) -> Any:
    return service_pb2.ModelStreamInferResponse(error_message=text)


def pack(items: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def add(response: Any, name: str, kind: str, shape: Any, content: bytes) -> None:
    response.outputs.add(name=name, datatype=kind, shape=list(shape))
    response.raw_output_contents.append(content)


def start_server(fake: FakeTimelines, port: int = 0) -> grpc.Server:
    def bind() -> bool:
        try:
            fake.url = f"localhost:{server.add_insecure_port(f'localhost:{port}')}"
        except RuntimeError:  # whoever had the port has not closed it yet
            return False
        return True

    server = grpc.server(
        ThreadPoolExecutor(16),
        options=[("grpc.max_receive_message_length", 2**31 - 1), ("grpc.so_reuseport", 0)],
    )
    add_GRPCInferenceServiceServicer_to_server(fake, server)
    assert wait_for(bind)
    server.start()
    return server
