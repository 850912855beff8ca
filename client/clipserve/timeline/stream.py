"""The gRPC stream of one timeline, blocking and awaiting.

tritonclient's own streams hand responses to a callback as they come, which bounds nothing, and its asyncio stream does
not ask for the empty last response. So both kinds here call the method itself: a response is taken from the network
when the caller wants it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from clipserve.fleet.fleet import Fleet
from clipserve.fleet.members import Member
from clipserve.timeline.request import is_last

_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_BROKEN = "the stream ended before its last window"
# How long `close` waits for the server's end of a stream after its last response.
_END_SECONDS = 2.0
# Triton 2.51 and our model put no status into the message of a failed response, only text. These are NOT_FOUND.
_NOT_FOUND = ("is not found", "has no available versions", "timelines have no")


class Stream:
    """A stream and a connection of its own; closing ends both. Any thread may call `cancel`.

    Only a stream in flight is cancelled. When a client cancels after the last response, Triton 2.51 often keeps the
    model loaded, and stops only after its exit timeout (measured: 16 to 20 s).
    """

    def __init__(self, fleet: Fleet, member: Member, message: bytes) -> None:
        self.member = member
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._requests.put(message)
        self._channel = fleet.connection.open_channel(member.target, fleet.credentials)
        # Called by a thread of gRPC, which ends at None.
        requests = iter(self._requests.get, None)
        self._call = _open_call(self._channel)(requests, metadata=fleet.connection.metadata)
        self._late = False
        self._answered = False

    def send(self, message: bytes) -> None:
        """Send another request."""
        self._requests.put(message)

    def receive(self, timeout_seconds: float) -> Any:
        """The next ModelInferResponse. Raises InferenceServerException."""
        try:
            with _call_after(timeout_seconds, self._give_up):
                response = next(self._call, None)
        except grpc.RpcError as exc:
            raise _convert(exc, late=self._late) from exc
        self._answered = _is_end(response)
        return _read(response)

    def cancel(self) -> None:
        """End the call; `receive` raises."""
        self._call.cancel()

    def close(self) -> None:
        """End the call and the connection. May be called twice."""
        self._requests.put(None)
        if self._answered:
            with suppress(grpc.RpcError), _call_after(_END_SECONDS, self._call.cancel):
                for _ in self._call:
                    pass
        self._call.cancel()
        self._channel.close()

    def _give_up(self) -> None:
        self._late = True
        self._call.cancel()


class AsyncStream:
    """`Stream` for asyncio. It belongs to the loop that opens it."""

    def __init__(self, fleet: Fleet, member: Member, message: bytes) -> None:
        self.member = member
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._requests.put_nowait(message)
        self._channel = fleet.connection.open_channel(member.target, fleet.credentials, grpc.aio)
        self._call = _open_call(self._channel)(self._list_requests(), metadata=fleet.connection.metadata)
        self._responses = aiter(self._call)
        self._answered = False

    def send(self, message: bytes) -> None:
        """Send another request."""
        self._requests.put_nowait(message)

    async def receive(self, timeout_seconds: float) -> Any:
        """The next ModelInferResponse. Raises InferenceServerException, or CancelledError after `cancel`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await anext(self._responses, None)
        except TimeoutError as exc:
            raise _make_failure("the next window did not come", grpc.StatusCode.DEADLINE_EXCEEDED) from exc
        except grpc.RpcError as exc:
            raise _convert(exc) from exc
        self._answered = _is_end(response)
        return _read(response)

    def cancel(self) -> None:
        """End the call; `receive` raises."""
        self._call.cancel()

    async def close(self) -> None:
        """End the call and the connection. May be called twice."""
        self._requests.put_nowait(None)
        try:
            if self._answered:
                with suppress(TimeoutError, grpc.RpcError):
                    async with asyncio.timeout(_END_SECONDS):
                        async for _ in self._responses:
                            pass
        finally:
            self._call.cancel()
            with suppress(asyncio.CancelledError):
                await self._channel.close()

    async def _list_requests(self) -> AsyncIterator[bytes]:
        while (message := await self._requests.get()) is not None:
            yield message


@contextmanager
def _call_after(seconds: float, callback: Callable[[], object]) -> Iterator[None]:
    """Call `callback`, from another thread, if the block takes longer."""
    timer = threading.Timer(seconds, callback)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _open_call(channel: Any) -> Any:
    """The method ModelStreamInfer, for requests that are serialized: the stub would serialize, and copy, the video."""
    read = service_pb2.ModelStreamInferResponse.FromString
    return channel.stream_stream(_METHOD, request_serializer=bytes, response_deserializer=read)


def _is_end(response: Any) -> bool:
    """Whether a ModelStreamInferResponse is the last one, or an error."""
    return response is not None and (bool(response.error_message) or is_last(response.infer_response))


def _read(response: Any) -> Any:
    """The ModelInferResponse of a ModelStreamInferResponse."""
    if response is None:
        raise _make_failure(_BROKEN, grpc.StatusCode.UNAVAILABLE)
    if text := response.error_message:
        known = any(words in text for words in _NOT_FOUND)
        raise _make_failure(text, grpc.StatusCode.NOT_FOUND if known else None)
    return response.infer_response


def _convert(exc: Any, *, late: bool = False) -> InferenceServerException:
    if late:
        return _make_failure("the next window did not come", grpc.StatusCode.DEADLINE_EXCEEDED)
    return _make_failure(exc.details(), exc.code())


def _make_failure(text: str, status: Any) -> InferenceServerException:
    return InferenceServerException(msg=text, status=None if status is None else str(status))
