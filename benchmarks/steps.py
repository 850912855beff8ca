"""One step of the service by itself, its tensors in shared memory: in the ensemble they never leave the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
from calls import DEADLINE_SECONDS, Ask
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient as BlockingClient
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import shared_memory

from clipserve_export.specs import ModelSpec


@contextmanager
def shared_region(url: str, size: int) -> Iterator[tuple[str, Any]]:
    """A region of shared memory that the server at `url` knows by the name given, with its handle."""
    name = f"clipserve-bench-{uuid4().hex}"
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
    try:
        with BlockingClient(url) as client:
            client.register_system_shared_memory(name, f"/{name}", size)
            try:
                yield name, handle
            finally:
                client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def ask_to_decode(client: InferenceServerClient, spec: ModelSpec, video: bytes, region: str) -> Ask:
    """A request to the decode step, whose clip goes to `region`."""
    tensor = InferInput("VIDEO", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[video]], dtype=np.object_))
    output = InferRequestedOutput(spec.geometry.output_name)
    output.set_shared_memory(region, clip_bytes(spec))

    async def ask() -> Any:
        return await client.infer("decode", [tensor], outputs=[output], client_timeout=DEADLINE_SECONDS)

    return ask


def ask_network(client: InferenceServerClient, spec: ModelSpec, region: str) -> Ask:
    """A request to the network, whose clip lies in `region`."""
    tensor = InferInput("CLIP", clip_shape(spec), "UINT8")
    tensor.set_shared_memory(region, clip_bytes(spec))
    outputs = [InferRequestedOutput("SCORES", class_count=5)]

    async def ask() -> Any:
        return await client.infer(spec.net_name, [tensor], outputs=outputs, client_timeout=DEADLINE_SECONDS)

    return ask


def read_clip(handle: Any, spec: ModelSpec) -> NDArray[np.uint8]:
    """A copy of the clip in a region: uint8 [1, 1, T, S, S, 3]."""
    clip: NDArray[np.uint8] = shared_memory.get_contents_as_numpy(handle, np.uint8, clip_shape(spec))
    return clip.copy()


def clip_shape(spec: ModelSpec) -> list[int]:
    """[N, V, T, S, S, 3] of one view of one video."""
    geometry = spec.geometry
    return [1, 1, geometry.frames, geometry.crop, geometry.crop, 3]


def clip_bytes(spec: ModelSpec) -> int:
    """Of one view of one video."""
    return int(np.prod(clip_shape(spec)))
