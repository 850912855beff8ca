"""What the first calls of a shape cost TorchScript, by how it is switched: `python benchmarks/first_calls.py`.

Shapes come as traffic brings them: one clip, then more. For each the first and second call and the median of later ones
are timed, in a process for each executor, because it is chosen for a process. On a GPU where torch sees one, in fp16;
else on the CPU, in fp32. Writes first_calls.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# How the C++ backend's parameters set them: ENABLE_JIT_PROFILING, ENABLE_JIT_EXECUTOR, ENABLE_TENSOR_FUSER.
EXECUTORS: dict[str, dict[str, bool]] = {
    "profiling (LibTorch's default)": {},
    "profiling, no fuser": {"enable_tensor_fuser": False},
    "no profiling (as exported)": {"enable_jit_profiling": False},
    "legacy": {"enable_jit_profiling": False, "enable_jit_executor": False},
}
FIRST = 4  # calls told apart; the profiling executor compiles in the second and may do so in the third


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["motion", "x3d_s"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--calls", type=int, default=12, help="of each shape (default 12)")
    parser.add_argument("--seconds", type=float, default=120, help="that one process may take (default 120)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--time", nargs=4, metavar=("FILE", "MODEL", "DEVICE", "SWITCHES"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Export, time each executor in a process of its own, write."""
    arguments = parse_arguments()
    sys.path[1:1] = [str(ROOT / name) for name in ("export", "server", "benchmarks")]
    if arguments.time:
        print(json.dumps(time_calls(*arguments.time, batches=arguments.batches, calls=arguments.calls)), flush=True)
        return
    import torch
    from gpu_matrix.machine import describe_machine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    page = [*_introduce(describe_machine(torch.device(device)))]
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            file = Path(folder, f"{model}.pt")
            write_network(model, device, file)
            page += ["", f"## {model}", "", *_head(arguments.batches)]
            for name, switches in EXECUTORS.items():
                row = run_apart(arguments, file, model, device, switches)
                page.append(f"| {name} | {row} |")
                print(f"{model}, {name}: {row}", flush=True)
                (arguments.out / "first_calls.md").write_text("\n".join(page) + "\n")


def write_network(model: str, device: str, file: Path) -> None:
    """As export writes it for this device, with random weights but for `motion`."""
    from clipserve_export.formats import write_torchscript
    from clipserve_export.network import served_network
    from clipserve_export.precision import in_precision
    from clipserve_export.specs import SPECS
    from clipserve_export.weights import load_weights

    spec = SPECS[model]
    network = served_network(spec, load_weights(spec, "pretrained" if spec.family == "motion" else "random").state)
    on_gpu = device == "cuda"
    network = in_precision(network, "fp16" if on_gpu else "fp32")
    write_torchscript(network, spec.geometry, file, target="gpu" if on_gpu else "cpu")


def run_apart(arguments: argparse.Namespace, file: Path, model: str, device: str, switches: dict[str, bool]) -> str:
    """The cells of a row: for each batch `first / second ... later`, in milliseconds."""
    options = ["--batches", *map(str, arguments.batches), "--calls", str(arguments.calls)]
    command = [sys.executable, __file__, *options, "--time", str(file), model, device, json.dumps(switches)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=arguments.seconds, check=False)
    except subprocess.TimeoutExpired:
        return " | ".join(["over the time"] * len(arguments.batches))
    if run.returncode:
        return " | ".join([(run.stderr.strip().splitlines() or ["failed"])[-1][:60]] * len(arguments.batches))
    taken: dict[str, list[float]] = json.loads(run.stdout.splitlines()[-1])
    return " | ".join(_cell(seconds) for seconds in taken.values())


def _cell(seconds: list[float]) -> str:
    later = statistics.median(seconds[FIRST:])
    first = " / ".join(f"{value * 1000:.4g}" for value in seconds[:FIRST])
    return f"{first} / **{later * 1000:.4g}** ({max(seconds[:FIRST]) / later:.1f} x)"


def time_calls(
    file: str, model: str, device: str, switches: str, *, batches: list[int], calls: int
) -> dict[int, list[float]]:
    """Seconds of each call, by batch, from the clip on the host to the answer on the host."""
    import torch

    from clipserve_export.clips import random_clips
    from clipserve_export.specs import SPECS

    setters: dict[str, Any] = {
        "enable_jit_profiling": torch._C._jit_set_profiling_mode,
        "enable_jit_executor": torch._C._jit_set_profiling_executor,
        "enable_tensor_fuser": torch._C._jit_set_texpr_fuser_enabled,
    }
    for name, on in json.loads(switches).items():
        setters[name](on)
    module = torch.jit.load(file, map_location=device)
    if device == "cuda":
        torch.zeros(1, device=device)  # The context is nobody's first call.
    taken: dict[int, list[float]] = {}
    with torch.inference_mode():
        for batch in batches:
            clip = random_clips(SPECS[model].geometry, batch=batch, views=1, seed=batch)
            taken[batch] = []
            for _ in range(calls):
                started = time.perf_counter()
                scores, _features = module(clip.to(device))
                scores.cpu()
                taken[batch].append(time.perf_counter() - started)
    return taken


def _introduce(machine: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return [
        f"# First calls of TorchScript on {machine['device']}",
        "",
        f"{versions}. Milliseconds of the first {FIRST} calls of a batch, and the median of later ones (bold); in",
        "brackets, how many times longer the slowest of the first took. Batches come in the order of the columns.",
    ]


def _head(batches: list[int]) -> list[str]:
    columns = " | ".join(f"{batch} at once" for batch in batches)
    return [f"| executor | {columns} |", f"| --- |{' --- |' * len(batches)}"]


if __name__ == "__main__":
    main()
