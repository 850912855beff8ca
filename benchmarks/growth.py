"""How cost and latency grow with the work: `python benchmarks/growth.py`.

Concurrency (closed loop) and four times the saturating rate (open loop), batch, views, length of the video, number of
servers with a core each. Writes growth.csv, growth.md and growth.png to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from benchmark_models import export_for_benchmark
from calls import Ask, Calls, ask_at_rate, ask_for_labels, keep_asking
from decode_footage import kinetics_like
from growth_plots import draw
from machine import describe_machine
from tritonclient.grpc.aio import InferenceServerClient

from clipserve_export.capacity import max_clips, max_videos
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.triton import Triton

RESULTS = Path(__file__).parent / "results"
CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OVERLOAD = 4.0  # times the saturating rate
VIEWS = (1, 2, 4, 8, 16, 30)
BATCHES = (1, 2, 4, 8)
LENGTHS = (5, 10, 30, 60, 120)  # seconds
LEAST_RATE_OVERLOADED = 0.9  # of the peak
FLIGHT_OF_ONE_CORE = 4  # requests at a time that saturate a core


@dataclass(frozen=True)
class Point:
    """One measurement: `kind` of growth at `size`; rates of videos, latencies in seconds."""

    kind: str
    size: float
    rate: float
    p50: float
    p95: float
    answered: int
    refused: int = 0
    refusal_p95: float = float("nan")


def summarise(kind: str, size: float, calls: Calls, *, videos: int = 1) -> Point:
    """A point of what became of requests with so many videos each. Raises SystemExit where one failed otherwise."""
    if calls.failed:
        raise SystemExit(f"{kind} {size:g}: {calls.failed}")
    refusals = sorted(calls.refused)
    return Point(
        kind=kind,
        size=size,
        rate=calls.rate * videos,
        p50=calls.percentile(50),
        p95=calls.percentile(95),
        answered=len(calls.answered),
        refused=len(refusals),
        refusal_p95=refusals[int(len(refusals) * 0.95)] if refusals else float("nan"),
    )


class Growth:
    """What is measured of one model."""

    def __init__(self, spec: ModelSpec, *, seconds: float, turns: int) -> None:
        self.spec, self.seconds, self.turns = spec, seconds, turns
        self.repository = export_for_benchmark(spec)
        self.videos = {length: kinetics_like(length).read_bytes() for length in LENGTHS}
        self.video = self.videos[10]

    def concurrency(self) -> Iterator[Point]:
        """Closed loop, then an open one far beyond what there is."""
        with self.serve() as triton:
            peak = 0.0
            for flight in CONCURRENCIES:
                calls = self.ask(triton, lambda ask, n=flight: keep_asking([ask] * n, self.seconds))  # type: ignore[misc]
                point = summarise("concurrency", flight, calls)
                peak = max(peak, point.rate)
                yield point
            rate = OVERLOAD * peak
            yield summarise(
                "overload", OVERLOAD, self.ask(triton, lambda ask: ask_at_rate(ask, rate, 3 * self.seconds))
            )
            # And afterwards all is as before.
            yield summarise("after overload", 8, self.ask(triton, lambda ask: keep_asking([ask] * 8, self.seconds)))

    def batch(self) -> Iterator[Point]:
        """Videos in one request, one request at a time."""
        sizes = [size for size in BATCHES if size <= max_videos(self.spec)]
        yield from self.one_at_a_time("batch", {size: ([self.video] * size, {}) for size in sizes})

    def views(self) -> Iterator[Point]:
        """Clips of one video."""
        sizes = [size for size in VIEWS if size <= max_clips(self.spec)]
        parameters = {size: {"policy": "clip", "views": size} for size in sizes}
        yield from self.one_at_a_time("views", {size: ([self.video], parameters[size]) for size in sizes})

    def length(self) -> Iterator[Point]:
        """Seconds of video."""
        yield from self.one_at_a_time("length", {size: ([video], {}) for size, video in self.videos.items()})

    def one_at_a_time(
        self, kind: str, sizes: dict[int, tuple[list[bytes], dict[str, str | int | float]]]
    ) -> list[Point]:
        """Latency of every size, in turns."""
        calls = {size: Calls() for size in sizes}

        async def run(triton: Triton) -> None:
            async with InferenceServerClient(triton.grpc_url) as client:
                for turn in range(self.turns + 1):
                    for size, (videos, parameters) in sizes.items():
                        ask = ask_for_labels(client, self.spec.name, videos, parameters)
                        await (calls[size] if turn else Calls()).make(ask)

        with self.serve() as triton:
            asyncio.run(run(triton))
        for taken in calls.values():
            taken.seconds = sum(taken.answered)
        return [summarise(kind, size, taken, videos=len(sizes[size][0])) for size, taken in calls.items()]

    def servers(self) -> Iterator[Point]:
        """Tritons with a core each, asked in turn; as many as there are cores."""
        cores = sorted(os.sched_getaffinity(0))
        with ExitStack() as stack:
            tritons: list[Triton] = []
            for core in cores:
                with on_core(core):
                    tritons.append(stack.enter_context(self.serve()))
            rates: dict[int, list[Calls]] = {count: [] for count in range(1, len(tritons) + 1)}
            for _ in range(3):
                for count, found in rates.items():
                    found.append(asyncio.run(self.ask_several(tritons[:count])))
            for count, found in rates.items():
                yield summarise("servers", count, sorted(found, key=lambda calls: calls.rate)[len(found) // 2])

    async def ask_several(self, tritons: Sequence[Triton]) -> Calls:
        """Closed loop over all of them."""
        async with AsyncExitStack() as stack:
            asks = []
            for triton in tritons:
                client = await stack.enter_async_context(InferenceServerClient(triton.grpc_url))
                asks += [ask_for_labels(client, self.spec.name, [self.video])] * FLIGHT_OF_ONE_CORE
            return await keep_asking(asks, self.seconds)

    def ask(self, triton: Triton, drive: Callable[[Ask], Awaitable[Calls]]) -> Calls:
        """What became of the requests that `drive` makes."""

        async def run() -> Calls:
            async with InferenceServerClient(triton.grpc_url) as client:
                return await drive(ask_for_labels(client, self.spec.name, [self.video]))

        return asyncio.run(run())

    def serve(self) -> Triton:
        """A Triton with this model alone."""
        return Triton(self.repository, models=[self.spec.name], http_port=0, grpc_port=0, metrics_port=0)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile may use this core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def report(model: str, table: pd.DataFrame) -> str:
    """The page: what was wanted, what was found, all numbers."""
    concurrency = table[table.kind == "concurrency"]
    peak = concurrency.rate.max()
    overload = table[table.kind == "overload"].iloc[0]
    lines = [
        f"{model}, H.264 340 x 256, ten seconds unless named; {describe_machine('onnxruntime', 'openvino', 'av')}",
        "",
        f"Peak: {peak:.2f} videos a second. At {OVERLOAD:g} times that rate: {overload.rate / peak:.0%} of the peak"
        f" ({LEAST_RATE_OVERLOADED:.0%} wanted), {int(overload.refused)} of {int(overload.answered + overload.refused)}"
        f" counted requests refused, 95 % of these within {overload.refusal_p95 * 1000:.0f} ms.",
        "",
        "Latency against work, as a straight line through the points (a request at a time):",
        "",
        "| work | milliseconds each | and once | largest distance from the line |",
        "|---|---:|---:|---:|",
    ]
    for kind in ("batch", "views", "length"):
        points = table[table.kind == kind]
        if len(points) > 2:
            slope, once = np.polyfit(points["size"], points.p50 * 1000, 1)
            off = np.abs(points.p50 * 1000 / (slope * points["size"] + once) - 1).max()
            lines.append(f"| {kind} | {slope:.1f} | {once:.1f} | {off:.0%} |")
    numbers = table.round({"rate": 2, "p50": 4, "p95": 4, "refusal_p95": 4})
    header = list(numbers.columns)
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(f"{value}" for value in row) + " |" for row in numbers.itertuples(index=False)]
    return "\n".join(lines).replace("nan", "") + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = ("concurrency", "batch", "views", "length", "servers")
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS))
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--seconds", type=float, default=10.0, help="at each load")
    parser.add_argument("--turns", type=int, default=5, help="requests of each size, one at a time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the table and the plot")
    arguments = parser.parse_args()
    growth = Growth(SPECS[arguments.model], seconds=arguments.seconds, turns=arguments.turns)
    points = []
    for kind in arguments.kinds:
        for point in getattr(growth, kind)():
            print(f"{point.kind} {point.size:g}: {point.rate:.2f} videos/s, p95 {point.p95 * 1000:.0f} ms", flush=True)
            points.append(point)
    table = pd.DataFrame(map(astuple, points), columns=[field.name for field in fields(Point)])
    arguments.out.mkdir(exist_ok=True)
    table.to_csv(arguments.out / "growth.csv", index=False, float_format="%.6g")
    draw(table, growth.spec.name, arguments.out / "growth.png")
    text = report(growth.spec.name, table)
    (arguments.out / "growth.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
