"""A question to one server: is the model ready? On a connection of its own, where no video is in the way."""

from enum import Enum, auto
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clipserve.connection import Connection
from clipserve.error_mapping import is_restricted
from clipserve.fleet.targets import Target

# A server that does not answer this for so long does nothing else either: Triton answers it without any model (0.2 ms).
ANSWER_SECONDS = 2.0


class Finding(Enum):
    """What a question found out."""

    READY = auto()
    NOT_READY = auto()
    UNREACHABLE = auto()
    SILENT = auto()


class Probe:
    """Asks one server about the model of a connection. The answer comes later; nothing here waits for it."""

    def __init__(self, connection: Connection, target: Target, credentials: Any) -> None:
        self._channel = connection.open_channel(target, credentials)
        self._ask = GRPCInferenceServiceStub(self._channel).ModelReady
        self._request = service_pb2.ModelReadyRequest(name=connection.model)
        self._metadata = connection.metadata
        self._answer: Any = None

    @property
    def pending(self) -> bool:
        """Whether a question has no answer yet."""
        return self._answer is not None and not self._answer.done()

    @property
    def asked(self) -> bool:
        """Whether there is a question whose answer `take` has not returned."""
        return self._answer is not None

    def ask(self) -> None:
        """Send the question."""
        self._answer = self._ask.future(self._request, timeout=ANSWER_SECONDS, metadata=self._metadata)

    def take(self) -> Finding:
        """What the question found out, once it is no longer pending."""
        answer, self._answer = self._answer, None
        code = answer.code()
        if code is grpc.StatusCode.OK:
            return Finding.READY if answer.result().ready else Finding.NOT_READY
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Finding.SILENT
        # A server that refuses the question is there.
        refused = code is not grpc.StatusCode.UNAVAILABLE or is_restricted(answer.details() or "")
        return Finding.READY if refused else Finding.UNREACHABLE

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
