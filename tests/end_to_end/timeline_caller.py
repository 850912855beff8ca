"""Calls the model `timeline` with Triton's own client, as the contract says."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tritonclient import grpc as triton_grpc

PATIENCE_SECONDS = 60.0
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AnsweredWindow:
    """A window of a response, with the response's progress."""

    facts: dict[str, Any]
    scores: Floats
    features: Floats | None
    progress: dict[str, Any]


class TimelineCaller:
    """One stream to a server."""

    def __init__(self, url: str) -> None:
        self._client = triton_grpc.InferenceServerClient(url)
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._in_flight = 0
        self._client.start_stream(callback=lambda result, error: self._answers.put((result, error)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not a finished stream: Triton 2.51 then often keeps the model, and stops only after its exit timeout.
        if self._in_flight:
            self.cancel()
        else:
            self._client.stop_stream()
        self._client.close()

    def cancel(self) -> None:
        """End the stream, whatever is in flight."""
        self._in_flight = 0
        self._client.stop_stream(cancel_requests=True)

    def send(self, video: bytes, **parameters: Any) -> None:
        """Send a request for a timeline, or whatever the parameters ask for."""
        tensor = triton_grpc.InferInput("VIDEO", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([video], dtype=np.object_))
        timeout = parameters.pop("timeout", None)
        # Without a list, Triton returns every output.
        outputs = [triton_grpc.InferRequestedOutput(name) for name in ("WINDOWS", "SCORES", "PROGRESS")]
        if parameters.get("features"):
            outputs.append(triton_grpc.InferRequestedOutput("FEATURES"))
        self._in_flight += 1
        self._client.async_stream_infer(
            "timeline",
            [tensor],
            outputs=outputs,
            parameters=parameters,
            enable_empty_final_response=True,
            timeout=timeout,
        )

    def receive(self) -> Iterator[list[AnsweredWindow]]:
        """The windows of each response until the final one. Raises InferenceServerException."""
        while True:
            result, error = self._answers.get(timeout=PATIENCE_SECONDS)
            if error is not None:
                self._in_flight -= 1
                raise error
            response = result.get_response()
            if response.outputs:
                yield list(_read(result))
            if response.parameters["triton_final_response"].bool_param:
                self._in_flight -= 1
                return

    def ask(self, video: bytes, **parameters: Any) -> Iterator[AnsweredWindow]:
        """Send a request, and give its windows one by one."""
        self.send(video, **parameters)
        for windows in self.receive():
            yield from windows


def _read(result: Any) -> Iterator[AnsweredWindow]:
    scores, features = result.as_numpy("SCORES"), result.as_numpy("FEATURES")
    (progress,) = result.as_numpy("PROGRESS")
    for number, text in enumerate(result.as_numpy("WINDOWS")):
        yield AnsweredWindow(
            json.loads(text), scores[number], None if features is None else features[number], json.loads(progress)
        )
