"""Measures what the first calls of a shape cost TorchScript, by its executor: `python -m benchmarks.first_calls`.

Shapes come as in traffic: one clip, then more. For each shape, the times of the first calls and the median of later
ones, in a fresh process for each executor, because the executor is chosen for a process. On a GPU, where torch sees
one, in fp16; else on the CPU in fp32. Writes first_calls.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.results import ROOT, new_parser, table, write_page
from benchmarks.harness.rounds import seconds_of

# As the parameters of the C++ backend set them: ENABLE_JIT_PROFILING, ENABLE_JIT_EXECUTOR, ENABLE_TENSOR_FUSER.
EXECUTORS: dict[str, dict[str, bool]] = {
    "profiling (LibTorch's default)": {},
    "profiling, no fuser": {"enable_tensor_fuser": False},
    "no profiling (as exported)": {"enable_jit_profiling": False},
    "legacy": {"enable_jit_profiling": False, "enable_jit_executor": False},
}
FIRST = 4  # the profiling executor compiles in the second call, and may do so in the third


def write_network(model: str, device: str, file: Path) -> None:
    """Write the TorchScript file as an export for this device does, with random weights but for `motion`."""
    from clipserve_export.families.adapter import served_network
    from clipserve_export.formats import write_torchscript
    from clipserve_export.precision import in_precision
    from clipserve_export.specs import SPECS
    from clipserve_export.weights import load_weights, offline_weights

    spec = SPECS[model]
    network = served_network(spec, load_weights(spec, offline_weights(spec)).state)
    on_gpu = device == "cuda"
    network = in_precision(network, "fp16" if on_gpu else "fp32")
    write_torchscript(network, spec.geometry, file, target="gpu" if on_gpu else "cpu")


def measure_apart(file: Path, model: str, device: str, switches: dict[str, bool], arguments: Any) -> list[str]:
    """Measure in a fresh process; returns the cells of a row, one for each batch."""
    order = {"file": str(file), "model": model, "device": device, "switches": switches}
    order |= {"batches": arguments.batches, "calls": arguments.calls}
    command = [sys.executable, "-m", "benchmarks.first_calls", "--child", json.dumps(order)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=arguments.seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return ["over the time"] * len(arguments.batches)
    if run.returncode:
        return [(run.stderr.strip().splitlines() or ["failed"])[-1][:60]] * len(arguments.batches)
    return [_cell(seconds) for seconds in json.loads(run.stdout.splitlines()[-1])]


def _cell(seconds: list[float]) -> str:
    later = statistics.median(seconds[FIRST:])
    first = " / ".join(f"{value * 1000:.4g}" for value in seconds[:FIRST])
    return f"{first} / **{later * 1000:.4g}** ({max(seconds[:FIRST]) / later:.1f} x)"


def time_calls(
    file: str, model: str, device: str, switches: dict[str, bool], batches: list[int], calls: int
) -> list[list[float]]:
    """Seconds of each call, by batch, from the clip on the host to the answer on the host."""
    import torch

    from clipserve_export.clips import random_clips
    from clipserve_export.specs import SPECS

    setters: dict[str, Any] = {
        "enable_jit_profiling": torch._C._jit_set_profiling_mode,
        "enable_jit_executor": torch._C._jit_set_profiling_executor,
        "enable_tensor_fuser": torch._C._jit_set_texpr_fuser_enabled,
    }
    for name, on in switches.items():
        setters[name](on)
    module = torch.jit.load(file, map_location=device)
    if device == "cuda":
        torch.zeros(1, device=device)  # makes the CUDA context ahead of the first call
    taken = []
    with torch.inference_mode():
        for batch in batches:
            clip = random_clips(SPECS[model].geometry, batch=batch, views=1, seed=batch)
            run = partial(run_once, module, clip, device)
            taken.append([seconds_of(run) for _ in range(calls)])
    return taken


def run_once(module: Any, clip: Any, device: str) -> Any:
    """From the clip on the host to the scores on the host."""
    return module(clip.to(device))[0].cpu()


def main() -> None:
    """Export, measure each executor in a process of its own, write."""
    parser = new_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["motion", "x3d_s"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--calls", type=int, default=12, help="of each shape (default 12)")
    parser.add_argument("--seconds", type=float, default=120, help="limit for one process (default 120)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(time_calls(**json.loads(arguments.child))))
        return
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    page = [
        f"# First calls of TorchScript on {name}",
        "",
        f"{describe_machine('torch')}.",
        f"Milliseconds of the first {FIRST} calls of a batch, and the median of later ones (bold); in brackets the",
        "slowest of the first calls over that median. Batches come in the order of the columns.",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            file = Path(folder, f"{model}.pt")
            write_network(model, device, file)
            rows = []
            for executor, switches in EXECUTORS.items():
                rows.append([executor, *measure_apart(file, model, device, switches, arguments)])
                print(f"{model}: {' | '.join(rows[-1])}", flush=True)
            columns = ["executor", *(f"batch {batch}" for batch in arguments.batches)]
            page += ["", f"## {model}", "", *table(columns, rows, texts=len(columns))]
    write_page(arguments.out / "first_calls.md", page)


if __name__ == "__main__":
    main()
