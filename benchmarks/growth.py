"""Measures how cost and latency grow with the work: `python -m benchmarks.growth`.

Concurrency (closed loop) and four times the saturating rate (open loop), batch, views, length of the video, number of
servers with a core each. Writes growth.csv, growth.md and growth.png to benchmarks/results/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient

from benchmarks.footage import kinetics_like
from benchmarks.harness.load import Calls, Request, classify_request, closed_loop, one_by_one, open_loop
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.models import export_for_benchmark, serve
from benchmarks.harness.results import (
    BLUE,
    GREY,
    ORANGE,
    new_figure,
    new_parser,
    save_figure,
    table,
    write_csv,
    write_page,
)
from benchmarks.harness.rounds import take_turns
from clipserve_export.capacity import max_clips, max_videos
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.triton import Triton

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OVERLOAD = 4.0  # times the saturating rate
VIEWS = (1, 2, 4, 8, 16, 30)
BATCHES = (1, 2, 4, 8)
LENGTHS = (5, 10, 30, 60, 120)  # seconds
MIN_OVERLOADED_SHARE = 0.9  # of the peak
IN_FLIGHT_PER_CORE = 4  # requests that saturate a core
LABELS = {
    "concurrency": "requests in flight",
    "batch": "videos in a request",
    "views": "clips of a video",
    "length": "seconds of video",
    "servers": "servers, a core each",
}


@dataclass(frozen=True)
class Point:
    """One measurement: `kind` of growth at `size`. Rates in videos a second, latencies in seconds."""

    kind: str
    size: float
    rate: float
    p50: float
    p95: float
    answered: int
    refused: int
    refusal_p95: float

    @classmethod
    def of(cls, kind: str, size: float, calls: Calls, *, videos: int = 1) -> Point:
        """Summarise requests with so many videos each. Raises SystemExit if one failed."""
        if calls.failed:
            raise SystemExit(f"{kind} {size:g}: {calls.failed}")
        refusal = float(np.percentile(calls.refused, 95)) if calls.refused else float("nan")
        counts = (len(calls.answered), len(calls.refused))
        return cls(kind, size, calls.rate * videos, calls.median, calls.percentile(95), *counts, refusal)


class Growth:
    """What is measured of one model: a method for each kind of growth."""

    def __init__(self, spec: ModelSpec, *, seconds: float, rounds: int) -> None:
        self.spec, self.seconds, self.rounds = spec, seconds, rounds
        self.repository = export_for_benchmark(spec)
        self.videos = {length: kinetics_like(length).read_bytes() for length in LENGTHS}
        self.video = self.videos[10]

    def concurrency(self) -> Iterator[Point]:
        """Closed loop, then an open loop far beyond the capacity, then again a closed one."""
        with self.serve() as triton:
            request, peak = self.request(triton, [self.video]), 0.0
            for count in CONCURRENCIES:
                point = Point.of("concurrency", count, closed_loop([request] * count, self.seconds))
                peak = max(peak, point.rate)
                yield point
            yield Point.of("overload", OVERLOAD, open_loop(request, OVERLOAD * peak, 3 * self.seconds))
            yield Point.of("after overload", 8, closed_loop([request] * 8, self.seconds))

    def batch(self) -> Iterator[Point]:
        """Videos in one request, one request at a time."""
        sizes = [size for size in BATCHES if size <= max_videos(self.spec)]
        return self.one_at_a_time("batch", {size: ([self.video] * size, {}) for size in sizes})

    def views(self) -> Iterator[Point]:
        """Clips of one video, one request at a time."""
        sizes = [size for size in VIEWS if size <= max_clips(self.spec)]
        return self.one_at_a_time("views", {size: ([self.video], {"policy": "clip", "views": size}) for size in sizes})

    def length(self) -> Iterator[Point]:
        """Seconds of video, one request at a time."""
        return self.one_at_a_time("length", {size: ([video], {}) for size, video in self.videos.items()})

    def one_at_a_time(self, kind: str, sizes: dict[int, tuple[list[bytes], dict[str, Any]]]) -> Iterator[Point]:
        """The latency of every size, in turns."""
        with self.serve() as triton, InferenceServerClient(triton.grpc_url) as client:
            requests = {size: self.request(triton, *content) for size, content in sizes.items()}
            turns = {size: partial(one_by_one, client, request) for size, request in requests.items()}
            for size, rounds in take_turns(turns, rounds=self.rounds).items():
                calls = Calls()
                for one in rounds:
                    calls.seconds += one.seconds
                    calls.answered += one.answered
                    calls.refused += one.refused
                    calls.failed |= one.failed
                yield Point.of(kind, size, calls, videos=len(sizes[size][0]))

    def servers(self) -> Iterator[Point]:
        """Tritons with a core each, in turns; as many as there are cores."""
        with ExitStack() as stack:
            requests: list[Request] = []
            contestants = {}
            for count, core in enumerate(sorted(os.sched_getaffinity(0)), 1):
                with on_core(core):
                    triton = stack.enter_context(self.serve())
                requests += [self.request(triton, [self.video])] * IN_FLIGHT_PER_CORE
                contestants[count] = partial(closed_loop, list(requests), self.seconds)
            for count, rounds in take_turns(contestants, rounds=3).items():
                yield Point.of("servers", count, sorted(rounds, key=lambda calls: calls.rate)[len(rounds) // 2])

    def request(self, triton: Triton, videos: list[bytes], parameters: dict[str, Any] | None = None) -> Request:
        """A request to a server of this model."""
        return classify_request(triton.grpc_url, self.spec.name, videos, parameters)

    def serve(self) -> Triton:
        """A Triton with this model alone."""
        return serve(self.repository, self.spec.name)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What starts inside the block runs on this core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def report(model: str, points: list[Point]) -> list[str]:
    """The page: the goal, the finding, all numbers."""
    lines = [f"{model}, H.264 340 x 256, ten seconds unless named; {describe_machine('onnxruntime', 'openvino', 'av')}"]
    peak = max((point.rate for point in points if point.kind == "concurrency"), default=float("nan"))
    for point in points:
        if point.kind == "overload":
            lines += [
                "",
                f"Peak: {peak:.2f} videos a second. At {OVERLOAD:g} times that rate: {point.rate / peak:.0%} of the"
                f" peak ({MIN_OVERLOADED_SHARE:.0%} wanted), {point.refused} of {point.answered + point.refused}"
                f" counted requests refused, 95 % of these within {point.refusal_p95 * 1000:.0f} ms.",
            ]
    fits = []
    for kind in ("batch", "views", "length"):
        found = [point for point in points if point.kind == kind]
        if len(found) > 2:
            sizes, times = (np.array([getattr(point, name) for point in found]) for name in ("size", "p50"))
            slope, once = np.polyfit(sizes, times * 1000, 1)
            off = np.abs(times * 1000 / (slope * sizes + once) - 1).max()
            fits.append([kind, f"{slope:.1f}", f"{once:.1f}", f"{off:.0%}"])
    lines += ["", "Latency against work, as a straight line through the points (one request at a time):", ""]
    lines += table(["work", "milliseconds each", "and once", "largest distance from the line"], fits)
    digits = {"rate": 2, "p50": 4, "p95": 4, "refusal_p95": 4}
    rows = ([round(v, digits[k]) if k in digits else v for k, v in asdict(point).items()] for point in points)
    lines += ["", *table(list(asdict(points[0])), rows)]
    return [line.replace("nan", "") for line in lines]


def draw(points: list[Point], model: str, path: Path) -> None:
    """A panel for each kind of growth; concurrency has two, of rate and latency."""
    found = {kind: [point for point in points if point.kind == kind] for kind in (*LABELS, "overload")}
    panels = [kind for kind in LABELS if found[kind]]
    panels = ["rate", *panels] if found["concurrency"] else panels
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(columns, rows, figsize=(4.6 * columns, 3.4 * rows))
    for axis, panel in zip(axes, panels, strict=False):
        kind = "concurrency" if panel == "rate" else panel
        sizes = [point.size for point in found[kind]]
        rates = [point.rate for point in found[kind]]
        latencies = [point.p50 * 1000 for point in found[kind]]
        axis.set_xlabel(LABELS[kind])
        axis.set_title("latency, ms", loc="left", fontsize=10)
        if kind == "concurrency":
            axis.set_xscale("log", base=2)
            axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        if panel == "rate":
            axis.set_title("videos a second", loc="left", fontsize=10)
            axis.plot(sizes, rates, "o-", color=BLUE)
            for point in found["overload"]:
                axis.axhline(point.rate, color=ORANGE, linestyle="--", linewidth=1)
                text = f"at {point.size:g} times the peak"
                axis.text(16, point.rate * 0.97, text, color=ORANGE, ha="center", va="top")
            axis.set_ylim(bottom=0)
        elif panel == "concurrency":
            axis.plot(sizes, latencies, "o-", color=BLUE, label="p50")
            axis.plot(sizes, [point.p95 * 1000 for point in found[kind]], "o-", color=ORANGE, label="p95")
            axis.set_yscale("log")
            axis.legend(frameon=False)
        elif panel == "servers":
            axis.set_title("videos a second", loc="left", fontsize=10)
            axis.bar(sizes, rates, color=BLUE, width=0.5)
            axis.plot(sizes, [rates[0] * size for size in sizes], "--", color=GREY, label="in proportion")
            axis.set_xticks(sizes)
            axis.legend(frameon=False)
        else:
            axis.plot(sizes, latencies, "o-", color=BLUE)
            axis.set(xlim=(0, None), ylim=(0, None))
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(f"{model}: how cost and latency grow with the work", x=0.01, ha="left", weight="bold")
    save_figure(figure, path)


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS))
    parser.add_argument("--kinds", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--seconds", type=float, default=10.0, help="at each load")
    parser.add_argument("--rounds", type=int, default=5, help="requests of each size, one at a time")
    arguments = parser.parse_args()
    growth = Growth(SPECS[arguments.model], seconds=arguments.seconds, rounds=arguments.rounds)
    points: list[Point] = []
    for kind in arguments.kinds:
        for point in getattr(growth, kind)():
            print(f"{point.kind} {point.size:g}: {point.rate:.2f} videos/s, p95 {point.p95 * 1000:.0f} ms", flush=True)
            points.append(point)
    numbers = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(point).items()} for point in points]
    write_csv(arguments.out / "growth.csv", numbers)
    draw(points, growth.spec.name, arguments.out / "growth.png")
    write_page(arguments.out / "growth.md", report(growth.spec.name, points))


if __name__ == "__main__":
    main()
