"""Measures what the service takes beyond decoding and network: `python -m benchmarks.service`.

One request at a time, in turns with decoding and the network called as functions in one process. Then the highest
throughput of the ensemble and of each step alone in the same Triton: once with all cores for both steps, where
1 / (1 / decode + 1 / network) is all that the ensemble can reach; once with a core for each step, as where the network
has a GPU, where the ensemble should reach its slower step. Last, where the time of a request goes, by Triton's time
stamps. Writes benchmarks/results/service.md.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tritonclient.grpc import InferenceServerClient

from benchmarks.footage import kinetics_like
from benchmarks.harness.load import Request, classify_request, clip_region, closed_loop, one_by_one
from benchmarks.harness.machine import describe_machine, own_seconds, tree_seconds
from benchmarks.harness.models import copy_repository, export_for_benchmark, serve
from benchmarks.harness.results import new_parser, table, write_page
from benchmarks.harness.rounds import seconds_of, take_turns
from clip_decode import Geometry, Limits, Sampling, decode_clips
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_server.backends.openvino_runtime import OpenVinoRuntime
from clipserve_server.options import wanted_precision
from clipserve_server.triton import Triton

MAX_OVERHEAD_MILLISECONDS = 10.0
MIN_SHARE = 0.9  # of the slower step
SHARED = "all cores for both steps"
APART = f"a core each (at least {MIN_SHARE:.0%} of the slower step wanted)"
IN_FLIGHT = 8  # requests that saturate two cores
WARM_UP = 3  # requests


def measure_unloaded(triton: Triton, spec: ModelSpec, repository: Path, video: bytes, rounds: int) -> dict[str, float]:
    """Median milliseconds of one request at a time, and of the same work without a server."""
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

    clip, request = decode(), classify_request(triton.grpc_url, spec.name, [video])
    with InferenceServerClient(triton.grpc_url) as client:
        contestants: dict[str, Callable[[], float]] = {
            "decoding": partial(seconds_of, decode),
            "network": partial(seconds_of, lambda: runtime.run({"CLIP": clip})),
            "service": lambda: one_by_one(client, request).check_all_answered("service").median,
        }
        turns = take_turns(contestants, rounds=rounds, warm_up=WARM_UP)
    return {name: median(seconds) * 1000 for name, seconds in turns.items()}


def measure_saturated(
    triton: Triton, spec: ModelSpec, video: bytes, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Videos a second and processor seconds a video of each step and of the ensemble: medians of rounds in turns."""

    def measure(name: str, requests: list[Request]) -> tuple[float, float]:
        before = tree_seconds(os.getpid()) - own_seconds()
        calls = closed_loop(requests, seconds).check_all_answered(name)
        used = tree_seconds(os.getpid()) - own_seconds() - before
        return calls.rate, used / len(calls.answered)

    with ExitStack() as stack:
        regions = [stack.enter_context(clip_region(triton.grpc_url, spec)) for _ in range(IN_FLIGHT)]
        requests = {
            "decode": [region.decode_request(video) for region in regions],
            "network": [region.network_request() for region in regions],
            "ensemble": [classify_request(triton.grpc_url, spec.name, [video])] * IN_FLIGHT,
        }
        # The network reads what the decode step wrote.
        closed_loop(requests["decode"], 1.0).check_all_answered("decode")
        assert all(region.read().any() for region in regions)
        turns = take_turns({name: partial(measure, name, several) for name, several in requests.items()}, rounds=rounds)
    return {
        name: {"rate": median(rate for rate, _ in values), "seconds": median(used for _, used in values)}
        for name, values in turns.items()
    }


def trace_requests(repository: Path, spec: ModelSpec, video: bytes, count: int) -> dict[str, float]:
    """Milliseconds of each part of a request, one request at a time: medians over Triton's traces."""
    with tempfile.TemporaryDirectory() as folder:
        settings = (f"triton,file={folder}/trace.json", "rate=1", "count=-1", "level=TIMESTAMPS")
        options = [f"--trace-config={setting}" for setting in settings]
        with serve(repository, spec.name, options=options) as triton, InferenceServerClient(triton.grpc_url) as client:
            calls = one_by_one(client, classify_request(triton.grpc_url, spec.name, [video]), WARM_UP + count)
        traces = [trace for file in Path(folder).glob("trace.json*") for trace in json.loads(file.read_text())]
    latencies = calls.check_all_answered("traced").answered[WARM_UP:]
    inside = read_traces(traces, spec)[WARM_UP:]
    spans = {name: median(span[name] for span in inside) for name in inside[0]}
    spans["gRPC, client"] = median(latencies) * 1000 - sum(spans.values())
    return spans


def read_traces(traces: list[dict[str, Any]], spec: ModelSpec) -> list[dict[str, float]]:
    """Milliseconds of each part of each ensemble request, in the order of their arrival."""
    stamps: dict[int, dict[str, int]] = {}
    facts: dict[int, dict[str, Any]] = {}
    for entry in traces:
        if "model_name" in entry:
            facts[entry["id"]] = entry
        for stamp in entry.get("timestamps", []):
            stamps.setdefault(entry["id"], {})[stamp["name"]] = stamp["ns"]
    steps: dict[int, dict[str, dict[str, int]]] = {}
    for number, fact in facts.items():
        if "parent_id" in fact:
            steps.setdefault(fact["parent_id"], {})[fact["model_name"]] = stamps[number]
    rows = []
    for number in sorted(steps):
        whole, decode, net = stamps[number], steps[number]["decode"], steps[number][spec.net_name]
        moments = {
            "arrival": whole["REQUEST_START"],
            "decode: queue": decode["COMPUTE_START"],
            # The decode step answers after it returns, so its end is the begin of the network's request.
            "decode: step": net["REQUEST_START"],
            "network: queue": net["COMPUTE_START"],
            "network: step": net["COMPUTE_OUTPUT_START"],
            "answer": whole["INFER_RESPONSE_COMPLETE"],
        }
        times = list(moments.values())
        rows.append({name: (b - a) / 1e6 for name, a, b in zip(list(moments)[1:], times, times[1:], strict=False)})
    return rows


def report(
    model: str, video: Path, unloaded: dict[str, float], spans: dict[str, float], saturated: dict[str, Any]
) -> list[str]:
    """The page."""
    overhead = unloaded["service"] - unloaded["decoding"] - unloaded["network"]
    rows = [
        ("decoding, as a function", f"{unloaded['decoding']:.1f}"),
        ("network, as a function", f"{unloaded['network']:.1f}"),
        ("service", f"{unloaded['service']:.1f}"),
        (f"**service beyond both** (at most {MAX_OVERHEAD_MILLISECONDS:.0f} wanted)", f"**{overhead:.1f}**"),
    ]
    lines = [f"{model}, {video.name}; {describe_machine('onnxruntime', 'openvino', 'av')}", ""]
    lines += ["## One request at a time", "", *table(["", "milliseconds"], rows), "", "By Triton's time stamps:", ""]
    lines += table(["part of a request", "milliseconds"], ((name, f"{value:.2f}") for name, value in spans.items()))
    for title, rates in saturated.items():
        decode, network, ensemble = (rates[name]["rate"] for name in ("decode", "network", "ensemble"))
        together = 1 / (1 / decode + 1 / network)
        steps = rates["decode"]["seconds"] + rates["network"]["seconds"]
        numbers = ([name, f"{value['rate']:.2f}", f"{value['seconds']:.4f}"] for name, value in rates.items())
        shared = f", and {ensemble / together:.0%} of what both would reach in turns" if title == SHARED else ""
        lines += ["", f"## Saturated, {title}", ""]
        lines += table(["", "videos a second", "processor seconds a video"], numbers)
        lines += [
            "",
            f"The ensemble reaches {ensemble / min(decode, network):.0%} of its slower step alone{shared}. It takes"
            f" {rates['ensemble']['seconds'] / steps:.2f} times the processor time of the two steps.",
        ]
    return lines


def set_to_one(parameter: str, config: Any) -> None:
    """Set a parameter of a model's config to 1."""
    config.parameters[parameter].string_value = "1"


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--model", default="x3d_m", choices=list(SPECS))
    parser.add_argument("--requests", type=int, default=40, help="one at a time")
    parser.add_argument("--rounds", type=int, default=5, help="of the saturated measurements")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each step in each round")
    arguments = parser.parse_args()
    spec = SPECS[arguments.model]
    repository, video = export_for_benchmark(spec), kinetics_like()
    content = video.read_bytes()
    saturated = {}
    with serve(repository, spec.name) as triton:
        print("one request at a time", flush=True)
        unloaded = measure_unloaded(triton, spec, repository, content, arguments.requests)
        print(f"saturated, {SHARED}", flush=True)
        saturated[SHARED] = measure_saturated(triton, spec, content, arguments.rounds, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        one_core = {
            "decode": partial(set_to_one, "workers"),
            spec.net_name: partial(set_to_one, "intra_op_thread_count"),
        }
        with serve(copy_repository(spec, repository, Path(folder), one_core), spec.name) as triton:
            print("saturated, a core each", flush=True)
            saturated[APART] = measure_saturated(triton, spec, content, arguments.rounds, arguments.seconds)
    print("traced", flush=True)
    spans = trace_requests(repository, spec, content, arguments.requests)
    write_page(arguments.out / "service.md", report(spec.name, video, unloaded, spans, saturated))


if __name__ == "__main__":
    main()
