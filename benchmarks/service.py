"""What the service takes beyond its two steps: `python benchmarks/service.py`.

idle: one request at a time, against decoding and the network called as functions in one process, turn by turn.
saturation: videos a second through the ensemble, against each step alone in the same Triton on the same cores. Once
with all cores for both: alone a step has all of them, so 1 / (1 / decode + 1 / network) is all there can be. Once with
a core for decoding and another for the network, as where the network has a GPU: the ensemble should be as fast as the
slower of them.
traces: where a request's time goes, by Triton's own time stamps. Writes benchmarks/results/service.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmark_models import export_for_benchmark, give_a_core_each
from calls import Ask, Calls, ask_for_labels, keep_asking
from decode_footage import kinetics_like
from machine import Usage, describe_machine
from steps import ask_network, ask_to_decode, clip_bytes, read_clip, shared_region
from traces import read_traces
from tritonclient.grpc.aio import InferenceServerClient

from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.backends.openvino_runtime import OpenVinoRuntime
from clipserve_server.options import wanted_precision
from clipserve_server.triton import Triton

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MOST_OVERHEAD_MILLISECONDS = 10.0
LEAST_SHARE = 0.9  # of the slower step
SHARED = "all cores for both steps"
FLIGHT = 8  # requests at a time that saturate two cores


def measure_idle(triton: Triton, spec: ModelSpec, repository: Path, video: bytes, turns: int) -> dict[str, float]:
    """Medians in milliseconds of one request at a time, and of the same work without a server."""
    from clip_decode import Geometry, Limits, Sampling, decode_clips

    output = spec.geometry.output_name
    geometries = {output: Geometry(**vars(spec.geometry))}
    runtime = OpenVinoRuntime(
        repository / spec.net_name / "1" / "model.onnx",
        ["SCORES", "FEATURES"],
        threads=len(os.sched_getaffinity(0)),
        precision=wanted_precision(),
    )

    def decode() -> Any:
        return decode_clips(video, geometries, Sampling(), Limits())[0][output][None]

    clip = decode()

    async def run() -> dict[str, float]:
        async with InferenceServerClient(triton.grpc_url) as client:
            ask = ask_for_labels(client, spec.name, [video])
            taken: dict[str, list[float]] = {"decoding": [], "network": [], "service": []}
            for turn in range(turns + 3):
                found = {"decoding": seconds_of(decode), "network": seconds_of(lambda: runtime.run({"CLIP": clip}))}
                started = time.perf_counter()
                await ask()
                found["service"] = time.perf_counter() - started
                for name, seconds in found.items() if turn >= 3 else ():
                    taken[name].append(seconds * 1000)
            return {name: median(values) for name, values in taken.items()}

    return asyncio.run(run())


def seconds_of(work: Any) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_saturation(
    triton: Triton, spec: ModelSpec, video: bytes, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Videos a second and processor seconds a video, of the ensemble and of each step: medians of rounds in turns."""
    found: dict[str, list[tuple[float, float]]] = {"decode": [], "network": [], "ensemble": []}

    async def run() -> None:
        async with InferenceServerClient(triton.grpc_url) as client:
            with ExitStack() as stack:
                regions = [stack.enter_context(shared_region(triton.grpc_url, clip_bytes(spec))) for _ in range(FLIGHT)]
                decoders = [ask_to_decode(client, spec, video, name) for name, _ in regions]
                await asyncio.gather(*(ask() for ask in decoders))
                assert read_clip(regions[0][1], spec).any()
                asks: dict[str, list[Ask]] = {
                    "decode": decoders,
                    "network": [ask_network(client, spec, name) for name, _ in regions],
                    "ensemble": [ask_for_labels(client, spec.name, [video])] * FLIGHT,
                }
                for turn in range(rounds + 1):
                    for name, several in asks.items():
                        before = Usage.now()
                        calls = await keep_asking(several, seconds if turn else 1.0)
                        check(name, calls)
                        used = Usage.now().ours - before.ours
                        if turn:
                            found[name].append((calls.rate, used / len(calls.answered)))

    asyncio.run(run())
    return {
        name: {"rate": median(rate for rate, _ in values), "seconds": median(used for _, used in values)}
        for name, values in found.items()
    }


def check(name: str, calls: Calls) -> None:
    """Raise unless every request was answered."""
    if calls.refused or calls.failed or not calls.answered:
        raise SystemExit(f"{name}: {len(calls.answered)} answered, {len(calls.refused)} refused, {calls.failed}")


def trace_requests(repository: Path, spec: ModelSpec, video: bytes, requests: int) -> dict[str, float]:
    """Where the time of one request at a time goes, in milliseconds: medians over Triton's own traces."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        options = [f"--trace-config=triton,file={path}", "--trace-config=rate=1", "--trace-config=count=-1"]
        options.append("--trace-config=level=TIMESTAMPS")
        with start_triton(repository, spec, options) as triton:

            async def run() -> list[float]:
                async with InferenceServerClient(triton.grpc_url) as client:
                    return (await keep_asking_times(ask_for_labels(client, spec.name, [video]), requests + 3))[3:]

            outside = asyncio.run(run())
        traces = [trace for file in Path(folder).glob("trace.json*") for trace in json.loads(file.read_text())]
    inside = read_traces(traces, spec)[3:]
    spans = {name: median(span[name] for span in inside) for name in inside[0]}
    spans["gRPC, client"] = median(outside) * 1000 - sum(spans.values())
    return spans


async def keep_asking_times(ask: Ask, times: int) -> list[float]:
    """Seconds of each of so many requests in a row."""
    calls = Calls()
    for _ in range(times):
        await calls.make(ask)
    check("traced", calls)
    return calls.answered


def start_triton(repository: Path, spec: ModelSpec, options: list[str] | None = None) -> Triton:
    """A Triton with this one model, on any ports."""
    return Triton(repository, models=[spec.name], http_port=0, grpc_port=0, metrics_port=0, options=options or [])


def report(model: str, video: Path, idle: dict[str, float], spans: dict[str, float], saturated: dict[str, Any]) -> str:
    """The page."""
    overhead = idle["service"] - idle["decoding"] - idle["network"]
    lines = [
        f"{model}, {video.name}; {describe_machine('onnxruntime', 'openvino', 'av')}",
        "",
        "## One request at a time",
        "",
        "| | milliseconds |",
        "|---|---:|",
        f"| decoding, as a function | {idle['decoding']:.1f} |",
        f"| network, as a function | {idle['network']:.1f} |",
        f"| service | {idle['service']:.1f} |",
        f"| **service beyond both** (at most {MOST_OVERHEAD_MILLISECONDS:.0f} wanted) | **{overhead:.1f}** |",
        "",
        "By Triton's time stamps:",
        "",
        "| part of a request | milliseconds |",
        "|---|---:|",
        *(f"| {name} | {value:.2f} |" for name, value in spans.items()),
    ]
    for title, rates in saturated.items():
        lines += ["", f"## Saturated, {title}", "", *describe_saturation(rates, shared=title == SHARED)]
    return "\n".join(lines) + "\n"


def describe_saturation(rates: dict[str, dict[str, float]], *, shared: bool) -> list[str]:
    """A table, and what it says; shared: whether both steps have the same cores."""
    decode, network, ensemble = (rates[name]["rate"] for name in ("decode", "network", "ensemble"))
    slower, together = min(decode, network), 1 / (1 / decode + 1 / network)
    steps = rates["decode"]["seconds"] + rates["network"]["seconds"]
    return [
        "| | videos a second | processor seconds a video |",
        "|---|---:|---:|",
        *(f"| {name} | {value['rate']:.2f} | {value['seconds']:.4f} |" for name, value in rates.items()),
        "",
        f"The ensemble gives {ensemble / slower:.0%} of its slower step alone"
        + (f", and {ensemble / together:.0%} of what both would give if they took turns" if shared else "")
        + f". It takes {rates['ensemble']['seconds'] / steps:.2f} times the processor time of the two steps.",
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS))
    parser.add_argument("--turns", type=int, default=40, help="requests one at a time")
    parser.add_argument("--rounds", type=int, default=5, help="of saturation")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each step in each round")
    parser.add_argument("--out", type=Path, default=RESULTS / "service.md")
    arguments = parser.parse_args()
    spec = SPECS[arguments.model]
    repository, video = export_for_benchmark(spec), kinetics_like()
    content = video.read_bytes()
    with start_triton(repository, spec) as triton:
        print("one request at a time", flush=True)
        idle = measure_idle(triton, spec, repository, content, arguments.turns)
        print("saturated", flush=True)
        saturated = {SHARED: measure_saturation(triton, spec, content, arguments.rounds, arguments.seconds)}
    print("saturated, a core each", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        apart = give_a_core_each(spec, repository, Path(folder))
        with start_triton(apart, spec) as triton:
            saturated[f"a core each (at least {LEAST_SHARE:.0%} of the slower step wanted)"] = measure_saturation(
                triton, spec, content, arguments.rounds, arguments.seconds
            )
    print("traced", flush=True)
    spans = trace_requests(repository, spec, content, arguments.turns)
    text = report(spec.name, video, idle, spans, saturated)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
