"""Measures the networks alone on the CPU, runtime by runtime: `python -m benchmarks.networks`.

Every runtime gets the same uint8 clips, the same weights and the same number of threads, in turns in one process. The
median of the rounds counts; the ratios to torch eager are the claim.
Writes networks.csv and networks.md to benchmarks/results/.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.results import new_parser, table, write_csv, write_page
from benchmarks.harness.rounds import Samples, seconds_of, take_turns
from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import served_network
from clipserve_export.formats import write_onnx, write_torchscript
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import random_weights
from clipserve_server.backends.openvino_runtime import OpenVinoRuntime

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

    error: of the features, relative to the largest. share: of the rate at which torch multiplies large matrices in the
    same precision, threads and run, which is about what the cores can do.
    """

    model: str
    clips: int
    runtime: str
    seconds: float
    error: float
    share: float


def list_runtimes(network: ActionNetwork, spec: ModelSpec, folder: Path, threads: int) -> Iterator[tuple[str, Run]]:
    """Yield each runtime, ready to run, with its name."""
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


def measure(spec: ModelSpec, clips: int, rounds: int, threads: int) -> list[Measurement]:
    """Measure all runtimes at one batch, in turns."""
    torch.set_num_threads(threads)
    network = served_network(spec, random_weights(spec).state)
    batch = random_clips(spec.geometry, batch=clips, views=1, seed=3).numpy()

    def time_warm(run: Run) -> float:
        run(batch)  # the runtime's threads went to sleep while others ran
        return seconds_of(lambda: run(batch))

    with tempfile.TemporaryDirectory() as folder:
        runtimes = dict(list_runtimes(network, spec, Path(folder), threads))
    expected = np.asarray(runtimes[EAGER](batch)[1])
    errors = {name: _distance(np.asarray(run(batch)[1]), expected) for name, run in runtimes.items()}
    contestants = {name: partial(time_warm, run) for name, run in runtimes.items()}
    contestants |= {"fp32": partial(matrix_rate, torch.float32), "bf16": partial(matrix_rate, torch.bfloat16)}
    turns = take_turns(contestants, rounds=rounds)
    medians = {name: Samples(tuple(values)).median for name, values in turns.items()}
    operations = count_operations(network, batch)
    measurements = []
    for name in runtimes:
        rate = medians["bf16" if name.endswith("bf16") else "fp32"]
        share = operations / medians[name] / rate
        measurements.append(Measurement(spec.name, clips, name, medians[name], errors[name], share))
    return measurements


def count_operations(network: ActionNetwork, batch: NDArray[np.uint8]) -> int:
    """Count the multiplications and additions of the network's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.from_numpy(batch))
    return int(counter.get_total_flops())


def matrix_rate(precision: torch.dtype) -> float:
    """Operations a second of a product of large matrices."""
    matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=precision)
    matrix @ matrix
    return 2 * MATRIX_SIDE**3 / seconds_of(lambda: matrix @ matrix)


def _distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def write_results(measurements: list[Measurement], threads: int, folder: Path) -> None:
    """Write the table as CSV and Markdown."""
    csv_rows = [
        {
            "model": m.model,
            "clips": m.clips,
            "runtime": m.runtime,
            "milliseconds": f"{m.seconds * 1000:.1f}",
            "feature_error": f"{m.error:.1e}",
            "matrix_share": f"{m.share:.3f}",
        }
        for m in measurements
    ]
    write_csv(folder / "networks.csv", csv_rows)
    cases = list(dict.fromkeys((m.model, m.clips) for m in measurements))
    found = {(m.model, m.clips, m.runtime): m for m in measurements}
    rows = []
    for runtime in dict.fromkeys(m.runtime for m in measurements):
        cells = []
        for case in cases:
            m, eager = found[(*case, runtime)], found[(*case, EAGER)]
            cells.append(f"{eager.seconds / m.seconds:.2f}, {m.share:.0%} ({m.error:.0e})")
        rows.append([runtime, *cells])
    milliseconds = [f"{found[(*case, EAGER)].seconds * 1000:.0f} ms" for case in cases]
    columns = ["", *(f"{model}, {clips}" for model, clips in cases)]
    lines = [
        f"{threads} threads; {describe_machine(*PACKAGES)}",
        "",
        "Times as fast as torch eager in the same run; then the share of the rate at which torch multiplies large",
        "matrices in that precision; in brackets the relative error of the features. The operations are those of the",
        "network as PyTorchVideo builds it, though exports of MViT leave out those that nothing reads. Random weights",
        "have the speed of any weights, but not their error.",
        "",
        *table(columns, [*rows, [f"{EAGER}, milliseconds a batch", *milliseconds]]),
    ]
    write_page(folder / "networks.md", lines)


def main() -> None:
    """Measure, print, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="part of the names of the models to measure")
    arguments = parser.parse_args()
    measurements: list[Measurement] = []
    for name, clips in CASES:
        if arguments.only in name:
            found = measure(SPECS[name], clips, arguments.rounds, arguments.threads)
            row = ", ".join(f"{m.runtime} {m.seconds * 1000:.0f} ms" for m in found)
            print(f"{name}, {clips} clips: {row}", flush=True)
            measurements += found
    write_results(measurements, arguments.threads, arguments.out)


if __name__ == "__main__":
    main()
