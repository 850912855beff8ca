"""Measures the networks alone on the CPU, runtime by runtime: `python benchmarks/networks.py`.

Every runtime gets the same uint8 clips, the same weights and the same number of threads, turn by
turn in one process; the median of the turns counts, and the ratios to torch eager are the claim.
Writes networks.csv and networks.md to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from clipserve_export.clips import random_clips
from clipserve_export.formats import write_onnx, write_torchscript
from clipserve_export.network import ActionNetwork, served_network
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import random_weights
from clipserve_server.backends.openvino_runtime import OpenVinoRuntime

RESULTS = Path(__file__).parent / "results"
CASES = (
    ("x3d_xs", 1),
    ("x3d_s", 1),
    ("x3d_m", 1),
    ("x3d_m", 4),
    ("mvit_base_16x4", 1),
    ("mvit_base_16x4", 4),
)
EAGER = "torch eager"
MATRIX_SIDE = 3072
PACKAGES = ("torch", "onnxruntime", "openvino")
Run = Callable[[NDArray[np.uint8]], tuple[Any, Any]]


@dataclass(frozen=True)
class Measurement:
    """One runtime on one model and batch.

    error: of the features, relative to their largest. share: of the rate at which torch multiplies large matrices in
    the same precision, on the same threads and in the same run: how near the network comes to what the cores can do.
    """

    model: str
    clips: int
    runtime: str
    seconds: float
    error: float
    share: float


def list_runtimes(network: ActionNetwork, spec: ModelSpec, folder: Path, threads: int) -> Iterator[tuple[str, Run]]:
    """Each runtime by name, ready to run."""
    import onnxruntime
    import openvino

    def run_torch(module: Any) -> Run:
        def run(clip: NDArray[np.uint8]) -> tuple[Any, Any]:
            with torch.inference_mode():
                scores, features = module(torch.from_numpy(clip))
            return scores, features

        return run

    yield EAGER, run_torch(network)
    with torch.no_grad():
        example = random_clips(spec.geometry, batch=2, views=2, seed=0)
        plain = torch.jit.freeze(torch.jit.trace(network, example, check_trace=False))
    yield "TorchScript, as traced", run_torch(plain)
    write_torchscript(network, spec.geometry, folder / "model.pt")
    yield "TorchScript, as exported", run_torch(torch.jit.load(folder / "model.pt"))
    path = folder / "model.onnx"
    write_onnx(network, spec.geometry, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    yield "ONNX Runtime", lambda clip: tuple(session.run(["SCORES", "FEATURES"], {"CLIP": clip}))
    core = openvino.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")) if has_bf16 else (("fp32", "f32"),):
        hints = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()

        def run(clip: NDArray[np.uint8], request: Any = request) -> tuple[Any, Any]:
            results = request.infer({"CLIP": clip}, share_inputs=True)
            return results["SCORES"].copy(), results["FEATURES"].copy()

        yield f"OpenVINO of any shape, {precision}", run
        served = OpenVinoRuntime(path, ["SCORES", "FEATURES"], threads=threads, precision=precision)
        yield f"OpenVINO as served, {precision}", lambda clip, served=served: tuple(served.run({"CLIP": clip}))  # type: ignore[misc]


def measure(spec: ModelSpec, clips: int, turns: int, threads: int) -> list[Measurement]:
    """Let the runtimes take turns at one batch."""
    torch.set_num_threads(threads)
    network = served_network(spec, random_weights(spec).state)
    batch = random_clips(spec.geometry, batch=clips, views=1, seed=3).numpy()
    with tempfile.TemporaryDirectory() as folder:
        runtimes = dict(list_runtimes(network, spec, Path(folder), threads))
    expected = np.asarray(runtimes[EAGER](batch)[1])
    errors = {name: _distance(np.asarray(run(batch)[1]), expected) for name, run in runtimes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(turns):
        rates["fp32"].append(matrix_rate(torch.float32))
        rates["bf16"].append(matrix_rate(torch.bfloat16))
        for name, run in runtimes.items():
            run(batch)  # Warm: the threads of the runtime before it have gone to sleep.
            started = time.perf_counter()
            run(batch)
            seconds[name].append(time.perf_counter() - started)
    operations = count_operations(network, batch)
    measurements = []
    for name, taken in seconds.items():
        median = statistics.median(taken)
        rate = statistics.median(rates["bf16" if name.endswith("bf16") else "fp32"])
        measurements.append(Measurement(spec.name, clips, name, median, errors[name], operations / median / rate))
    return measurements


def count_operations(network: ActionNetwork, batch: NDArray[np.uint8]) -> int:
    """Multiplications and additions of the network's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.from_numpy(batch))
    return int(counter.get_total_flops())


def matrix_rate(precision: torch.dtype) -> float:
    """Operations a second of one product of large matrices."""
    matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=precision)
    matrix @ matrix
    started = time.perf_counter()
    matrix @ matrix
    return 2 * MATRIX_SIDE**3 / (time.perf_counter() - started)


def _distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def write_results(measurements: list[Measurement], threads: int) -> None:
    """Write the table as CSV and Markdown."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "networks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "clips", "runtime", "milliseconds", "feature_error", "matrix_share"])
        for m in measurements:
            writer.writerow(
                [m.model, m.clips, m.runtime, f"{m.seconds * 1000:.1f}", f"{m.error:.1e}", f"{m.share:.3f}"]
            )
    lines = [
        f"{threads} threads; {describe_machine(*PACKAGES)}",
        "",
        "Times faster than torch eager in the same run; after it the share of the rate at which torch multiplies",
        "large matrices in that precision, and in brackets the relative error of the features. Counted are the",
        "operations of the network as PyTorchVideo builds it, though exports of MViT leave out those that nothing",
        "reads. Random weights: the speed is that of any weights, the error is not.",
        "",
    ]
    cases = list(dict.fromkeys((m.model, m.clips) for m in measurements))
    lines += [f"| | {' | '.join(f'{model}, {clips}' for model, clips in cases)} |", f"|---|{'---:|' * len(cases)}"]
    found = {(m.model, m.clips, m.runtime): m for m in measurements}
    for runtime in dict.fromkeys(m.runtime for m in measurements):
        cells = []
        for model, clips in cases:
            m, eager = found[model, clips, runtime], found[model, clips, EAGER]
            cells.append(f"{eager.seconds / m.seconds:.2f}, {m.share:.0%} ({m.error:.0e})")
        lines.append(f"| {runtime} | {' | '.join(cells)} |")
    milliseconds = [f"{found[model, clips, EAGER].seconds * 1000:.0f} ms" for model, clips in cases]
    lines.append(f"| {EAGER}, milliseconds a batch | {' | '.join(milliseconds)} |")
    (RESULTS / "networks.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="part of the names of the models to measure")
    arguments = parser.parse_args()
    measurements: list[Measurement] = []
    for name, clips in CASES:
        if arguments.only in name:
            measurements += measure(SPECS[name], clips, arguments.turns, arguments.threads)
            rows = [
                f"{m.runtime} {m.seconds * 1000:.0f} ms" for m in measurements if (m.model, m.clips) == (name, clips)
            ]
            print(f"{name}, {clips} clips: {', '.join(rows)}", flush=True)
    write_results(measurements, arguments.threads)


if __name__ == "__main__":
    main()
