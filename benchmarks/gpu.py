"""Measures the networks on one GPU, whichever way they can be run there: `python benchmarks/gpu.py`.

Models x precisions (float32, TF32, fp16, bf16) x layouts x batches x runtimes (eager, TorchScript, torch.compile, each
with and without CUDA graphs; ONNX Runtime by CUDA and TensorRT where it is installed), the most telling first, until
the time is over. Every program's answers are compared with those of the network in float32. Writes gpu.md, gpu.csv and
gpu.json, after every group of cells, so that an end in between (Ctrl-C, too) loses none.
So far it has been rehearsed on a CPU (`--device cpu --quick`) and not run on a GPU: CUDA graphs, ONNX Runtime by CUDA
and TensorRT, and the memory figures are untried.

Beside a CUDA build of torch, and numpy, it needs Python sources only: this checkout, and PyTorchVideo with four small
packages. Where they are not installed, bring them along in a folder, made anywhere there is pip:

    python -m pip install --no-deps --target .cache/gpu-packages \\
        pytorchvideo==0.1.5 fvcore iopath portalocker termcolor tabulate tqdm
    python benchmarks/gpu.py --packages .cache/gpu-packages
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
REHEARSAL = ROOT / ".cache" / "benchmarks" / "gpu-rehearsal"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="or 'all' (default x3d_m and mvit_base_16x4)")
    parser.add_argument("--minutes", type=float, default=7.5, help="when to stop, loading and all (default 7.5)")
    parser.add_argument("--batches", type=int, nargs="+", help="clips at once (default 1 to 32)")
    parser.add_argument("--precisions", nargs="+", help="of fp32, tf32, fp16, bf16")
    parser.add_argument("--runtimes", nargs="+", help="leave the others out")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default 5)")
    parser.add_argument("--weights", default="random", help="random, pretrained, or a checkpoint")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu rehearses the script")
    parser.add_argument("--quick", action="store_true", help="motion, two small batches, short rounds: a rehearsal")
    parser.add_argument("--packages", type=Path, help="a folder with PyTorchVideo and what it needs")
    parser.add_argument("--out", type=Path, help="where to write (default benchmarks/results; on a CPU, .cache)")
    return parser.parse_args()


def find_packages(folder: Path | None) -> None:
    """Make this checkout and the packages brought along importable; ends the program where some are missing."""
    sys.path[1:1] = [str(ROOT / name) for name in ("export", "server")]
    if folder:
        # Behind what is installed, which fits the torch that is there.
        sys.path.append(str(folder.resolve()))
    try:
        from clipserve_export.zoo import pytorchvideo

        for module in ("models.hub.x3d", "models.hub.vision_transformers"):
            pytorchvideo(module)
    except ImportError as error:
        sys.exit(f"{error}. The networks come from PyTorchVideo; python benchmarks/gpu.py --help says how to bring it")


def main() -> None:
    """Measure, print, write."""
    arguments = parse_arguments()
    find_packages(arguments.packages)
    import torch
    from gpu_matrix.budget import Budget
    from gpu_matrix.matrix import measure_matrix, quick_setting, whole_setting

    budget = Budget(arguments.minutes * 60)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu --quick rehearses the script without one")
    setting = quick_setting() if arguments.quick else whole_setting()
    chosen = {name: getattr(arguments, name) for name in ("models", "batches", "precisions", "runtimes", "rounds")}
    setting = replace(setting, weights=arguments.weights, **{name: given for name, given in chosen.items() if given})
    folder = arguments.out or (ROOT / "benchmarks" / "results" if device.type == "cuda" else REHEARSAL)
    # What compilers have to say on the way is not what is asked for here.
    logging.disable(logging.WARNING)
    # As Ctrl-C: what there is gets written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(measure_matrix(setting, device, budget, folder))


if __name__ == "__main__":
    main()
