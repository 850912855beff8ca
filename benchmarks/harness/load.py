"""Requests to a running server: one after the other, in closed loop, in open loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException, shared_memory

from benchmarks.harness.rounds import Samples
from clipserve.retry import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS
from clipserve_export.specs import ModelSpec

BUSY = "StatusCode.UNAVAILABLE"
TIMEOUT_SECONDS = 120.0
RELEASE_SECONDS = 10.0  # of shared memory, after the last response


@dataclass(frozen=True)
class Request:
    """An inference request, to be sent any number of times."""

    url: str
    model: str
    inputs: Sequence[InferInput]
    outputs: Sequence[InferRequestedOutput]
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)

    def send(self, client: Any) -> Any:
        """The response; with an AsyncClient, something to await."""
        return client.infer(
            self.model,
            list(self.inputs),
            outputs=list(self.outputs),
            parameters=dict(self.parameters),
            client_timeout=TIMEOUT_SECONDS,
        )


def classify_request(
    url: str, model: str, videos: Sequence[bytes], parameters: Mapping[str, str | int | float] | None = None
) -> Request:
    """The top five labels of each of `videos`, in one batch."""
    tensor = InferInput("VIDEO", [len(videos), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[video] for video in videos], dtype=np.object_))
    return Request(url, model, [tensor], [InferRequestedOutput("SCORES", class_count=5)], parameters or {})


@dataclass(frozen=True)
class ClipRegion:
    """Shared memory for one clip: to measure one step alone, without sending a tensor that the ensemble never sends."""

    url: str
    spec: ModelSpec
    name: str
    handle: Any

    def decode_request(self, video: bytes) -> Request:
        """The decode step alone; writes the clip into the region."""
        tensor = InferInput("VIDEO", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[video]], dtype=np.object_))
        output = InferRequestedOutput(self.spec.geometry.output_name)
        output.set_shared_memory(self.name, clip_bytes(self.spec))
        return Request(self.url, "decode", [tensor], [output])

    def network_request(self) -> Request:
        """The network alone; reads the clip from the region."""
        tensor = InferInput("CLIP", clip_shape(self.spec), "UINT8")
        tensor.set_shared_memory(self.name, clip_bytes(self.spec))
        return Request(self.url, self.spec.net_name, [tensor], [InferRequestedOutput("SCORES", class_count=5)])

    def write(self, clip: NDArray[np.uint8]) -> None:
        """Put a clip there: uint8 [1, 1, T, S, S, 3]."""
        shared_memory.set_shared_memory_region(self.handle, [clip])

    def read(self) -> NDArray[np.uint8]:
        """A copy of the clip: uint8 [1, 1, T, S, S, 3]."""
        clip: NDArray[np.uint8] = shared_memory.get_contents_as_numpy(self.handle, np.uint8, clip_shape(self.spec))
        return clip.copy()


@contextmanager
def clip_region(url: str, spec: ModelSpec) -> Iterator[ClipRegion]:
    """Shared memory that the server at `url` knows, for the length of the block."""
    name, size = f"clipserve-bench-{uuid4().hex}", clip_bytes(spec)
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
    try:
        with InferenceServerClient(url) as client:
            client.register_system_shared_memory(name, f"/{name}", size)
            try:
                yield ClipRegion(url, spec, name, handle)
            finally:
                _unregister(client, name)
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def _unregister(client: InferenceServerClient, name: str) -> None:
    """Unregister shared memory; Triton holds it for a moment after the response."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while True:
        try:
            return client.unregister_system_shared_memory(name)
        except InferenceServerException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def clip_shape(spec: ModelSpec) -> list[int]:
    """[N, V, T, S, S, 3] of one view of one video."""
    geometry = spec.geometry
    return [1, 1, geometry.frames, geometry.crop, geometry.crop, 3]


def clip_bytes(spec: ModelSpec) -> int:
    """The size of one view of one video."""
    return int(np.prod(clip_shape(spec)))


@dataclass
class Calls:
    """What became of the requests of one measurement. Durations in seconds."""

    seconds: float = 0.0  # the measurement
    answered: list[float] = field(default_factory=list)  # latencies
    refused: list[float] = field(default_factory=list)  # until the server said that it is busy
    failed: dict[str, int] = field(default_factory=dict)  # other errors: status -> count

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds if self.seconds else 0.0

    @property
    def median(self) -> float:
        """Of the latencies; NaN without answers."""
        return Samples(tuple(self.answered)).median

    def percentile(self, percent: float) -> float:
        """Of the latencies; NaN without answers."""
        return float(np.percentile(self.answered, percent)) if self.answered else float("nan")

    def check_all_answered(self, what: str) -> Calls:
        """Return self. Raises SystemExit unless every request was answered."""
        if self.refused or self.failed or not self.answered:
            raise SystemExit(f"{what}: {len(self.answered)} answered, {len(self.refused)} refused, {self.failed}")
        return self

    def count(self, seconds: float, error: InferenceServerException | None) -> None:
        """Add one request."""
        if error is None:
            self.answered.append(seconds)
        elif error.status() == BUSY:
            self.refused.append(seconds)
        else:
            self.failed[str(error.status())] = self.failed.get(str(error.status()), 0) + 1

    def clear(self) -> None:
        """Forget the requests so far."""
        for counted in (self.answered, self.refused, self.failed):
            counted.clear()

    def until_now(self, started: float) -> Calls:
        """A copy of what was counted until now."""
        copied = Calls(0.0, list(self.answered), list(self.refused), dict(self.failed))
        return replace(copied, seconds=time.perf_counter() - started)


def one_by_one(client: InferenceServerClient, request: Request, times: int = 1) -> Calls:
    """Send the request so many times, each after the answer to the last."""
    calls, started = Calls(), time.perf_counter()
    for _ in range(times):
        begun, error = time.perf_counter(), None
        try:
            request.send(client)
        except InferenceServerException as caught:
            error = caught
        calls.count(time.perf_counter() - begun, error)
    return calls.until_now(started)


def closed_loop(requests: Sequence[Request], seconds: float, *, warm_up: float = 0.0) -> Calls:
    """Keep all of `requests` in flight: send each again when it is answered. Answers after `seconds` do not count.

    A refused request waits before the next try as the client does, longer after each refusal in a row.

    warm_up: seconds before that, whose answers do not count.
    """
    return asyncio.run(_closed_loop(requests, seconds, warm_up))


def open_loop(request: Request, rate: float, seconds: float) -> Calls:
    """Send `rate` requests a second, answered or not. Answers after `seconds` do not count."""
    return asyncio.run(_open_loop(request, rate, seconds))


async def _send(request: Request, client: AsyncClient, calls: Calls) -> bool:
    begun, error = time.perf_counter(), None
    try:
        await request.send(client)
    except InferenceServerException as caught:
        error = caught
    calls.count(time.perf_counter() - begun, error)
    return error is None


async def _closed_loop(requests: Sequence[Request], seconds: float, warm_up: float) -> Calls:
    async def repeat(request: Request) -> None:
        refusals = 0
        while time.perf_counter() < end:
            refusals = 0 if await _send(request, clients[request.url], calls) else refusals + 1
            if refusals:
                longest = min(FIRST_RETRY_SECONDS * 2 ** (refusals - 1), LONGEST_RETRY_SECONDS)
                left = end - time.perf_counter()
                await asyncio.sleep(min(random.uniform(0, longest), max(left, 0)))

    calls = Calls()
    async with _open_clients(requests) as clients:
        end = time.perf_counter() + warm_up + seconds
        tasks = [asyncio.create_task(repeat(request)) for request in requests]
        await asyncio.sleep(warm_up)
        calls.clear()
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        counted = calls.until_now(started)
        await asyncio.gather(*tasks)
    return counted


async def _open_loop(request: Request, rate: float, seconds: float) -> Calls:
    calls = Calls()
    async with _open_clients([request]) as clients:
        started = time.perf_counter()
        tasks = set[asyncio.Task[bool]]()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(started + number / rate - time.perf_counter(), 0))
            tasks.add(asyncio.create_task(_send(request, clients[request.url], calls)))
        await asyncio.sleep(max(started + seconds - time.perf_counter(), 0))
        counted = calls.until_now(started)
        await asyncio.gather(*tasks)
    return counted


@asynccontextmanager
async def _open_clients(requests: Sequence[Request]) -> AsyncIterator[dict[str, AsyncClient]]:
    """A client for each server."""
    async with AsyncExitStack() as stack:
        urls = {request.url for request in requests}
        yield {url: await stack.enter_async_context(AsyncClient(url)) for url in urls}
