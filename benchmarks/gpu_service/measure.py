"""One server and what is measured on it: its first requests, its rates, and its answers beside those of a CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from benchmarks.gpu.outcomes import Closeness, compare_answers
from benchmarks.gpu_service.plan import Cell
from benchmarks.gpu_service.usage import UsageMonitor, Use
from benchmarks.harness.load import Calls, ClipRegion, Request, classify_request, clip_region, closed_loop
from benchmarks.harness.rounds import seconds_of
from clip_decode import Geometry, Limits, Sampling, decode_clips
from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import served_network
from clipserve_export.specs import ModelSpec
from clipserve_export.weights import load_weights, offline_weights
from clipserve_server.triton import Triton

Clip = NDArray[np.uint8]
FIRST, LATER = 3, 9  # requests
_DECODED = "clipserve_decode_decoded_total"


@dataclass(frozen=True)
class Measured:
    """A measurement that was made.

    Attributes:
        by_nvdec: share of its videos that NVDEC decoded; None where nothing was decoded.
        equal, compared: clips that are equal to the CPU's to the bit, of those that were compared.
    """

    cell: Cell
    calls: Calls
    use: Use
    by_nvdec: float | None = None
    equal: int = 0
    compared: int = 0


@dataclass(frozen=True)
class FirstRequests:
    """The seconds of the first requests of a kind, and of those that came after them, one at a time."""

    what: str
    first: Sequence[float]
    later: float  # median

    @property
    def ratio(self) -> float:
        """The slowest of the first ones to a later one."""
        return max(self.first) / self.later


@dataclass(frozen=True)
class Answer:
    """An answer of the service for a video, beside the network in float32 on the CPU with the CPU's frames."""

    video: str
    decoder: str  # that took it
    closeness: Closeness


class References:
    """What a CPU makes of the videos: the clips, and the network's answers to them. Each is computed once."""

    def __init__(self, spec: ModelSpec, videos: Mapping[str, bytes]) -> None:
        self.spec, self.videos = spec, videos
        self._clips: dict[str, Clip] = {}
        self._network: Any = None

    def clip(self, video: str) -> Clip:
        """Of one video: uint8 [1, 1, T, S, S, 3]."""
        if video not in self._clips:
            output = self.spec.geometry.output_name
            geometries = {output: Geometry(**vars(self.spec.geometry))}
            self._clips[video] = decode_clips(self.videos[video], geometries, Sampling(), Limits())[0][output][None]
        return self._clips[video]

    def answer(self, video: str) -> tuple[torch.Tensor, torch.Tensor]:
        """SCORES [1, K] and FEATURES [1, D] of the network in float32."""
        if self._network is None:
            self._network = served_network(self.spec, load_weights(self.spec, offline_weights(self.spec)).state)
        with torch.inference_mode():
            scores, features = self._network(torch.from_numpy(self.clip(video)))
        return scores, features


class ServerMeasurement:
    """The measurements of one server that runs."""

    def __init__(self, triton: Triton, references: References, monitor: UsageMonitor) -> None:
        self._triton, self._references, self._monitor = triton, references, monitor
        self._spec, self._url = references.spec, triton.grpc_url

    def measure(self, cell: Cell, seconds: float, warm_up: float) -> Measured:
        """Keep requests in flight for so long, after so many seconds that do not count."""
        with ExitStack() as stack:
            regions = [] if cell.part == "service" else self._open_regions(stack, cell)
            requests = list(self._requests(cell, regions))
            before = self._decoded()
            with self._monitor.watch() as use:
                calls = closed_loop(requests, seconds, warm_up=warm_up)
            by_decoder = {name: count - before[name] for name, count in self._decoded().items()}
            if cell.part == "network":
                return Measured(cell, calls, use)
            by_nvdec = by_decoder["nvdec"] / max(sum(by_decoder.values()), 1)
            # A region without an answer is still empty.
            clips = [clip for clip in (region.read() for region in regions) if clip.any()]
            expected = self._references.clip(cell.name)
            equal = sum(np.array_equal(clip, expected) for clip in clips)
            return Measured(cell, calls, use, by_nvdec, equal, len(clips))

    def _open_regions(self, stack: ExitStack, cell: Cell) -> list[ClipRegion]:
        regions = [stack.enter_context(clip_region(self._url, self._spec)) for _ in range(cell.in_flight)]
        clips = random_clips(self._spec.geometry, batch=4, views=1, seed=3).numpy()
        for number, region in enumerate(regions):
            number %= len(clips)
            clip = clips[number : number + 1]
            region.write(clip if cell.part == "network" else np.zeros_like(clip))
        return regions

    def _requests(self, cell: Cell, regions: Sequence[ClipRegion]) -> Iterator[Request]:
        if cell.part == "network":
            yield from (region.network_request() for region in regions)
            return
        video = self._references.videos[cell.name]
        if cell.part == "decode":
            yield from (region.decode_request(video) for region in regions)
        else:
            yield from [classify_request(self._url, self._spec.name, [video])] * cell.in_flight

    def _decoded(self) -> dict[str, float]:
        """How many videos each decoder has decoded so far."""
        with urlopen(self._triton.metrics_url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        counts = {"cpu": 0.0, "nvdec": 0.0}
        for line in lines:
            for decoder in counts:
                if line.startswith(f'{_DECODED}{{decoder="{decoder}"'):
                    counts[decoder] = float(line.split()[-1])
        return counts

    def first_requests(self, batches: Sequence[int]) -> Iterator[FirstRequests]:
        """Of the service first, with the smallest video: no request came before. Then of the network, by batch."""
        video = min(self._references.videos, key=lambda name: len(self._references.videos[name]))
        requests = {f"service, {video}": classify_request(self._url, self._spec.name, [self._references.videos[video]])}
        for batch in batches:
            clips = random_clips(self._spec.geometry, batch=batch, views=1, seed=batch).numpy()
            tensor = InferInput("CLIP", list(clips.shape), "UINT8")
            tensor.set_data_from_numpy(clips)
            outputs = [InferRequestedOutput("SCORES", class_count=5)]
            requests[f"network, batch {batch}"] = Request(self._url, self._spec.net_name, [tensor], outputs)
        with InferenceServerClient(self._url) as client:
            for what, request in requests.items():
                seconds = [seconds_of(lambda request=request: request.send(client)) for _ in range(FIRST + LATER)]  # type: ignore[misc]
                yield FirstRequests(what, seconds[:FIRST], median(seconds[FIRST:]))

    def answers(self) -> Iterator[Answer]:
        """The service's answer for every video."""
        with InferenceServerClient(self._url) as client:
            for video, content in self._references.videos.items():
                request = classify_request(self._url, self._spec.name, [content])
                outputs = [InferRequestedOutput(name) for name in ("SCORES", "FEATURES", "REPORT")]
                result = Request(self._url, self._spec.name, request.inputs, outputs).send(client)
                given = tuple(torch.from_numpy(result.as_numpy(name).copy()) for name in ("SCORES", "FEATURES"))
                report = json.loads(result.as_numpy("REPORT").flat[0])
                closeness = compare_answers([(given[0], given[1])], [self._references.answer(video)])
                yield Answer(video, report["decoder"], closeness)
