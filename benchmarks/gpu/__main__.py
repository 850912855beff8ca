"""Measures the networks on one GPU, in every way they can run there: `python -m benchmarks.gpu`.

Models x precisions (float32, TF32, fp16, bf16) x layouts x batches x runtimes (eager, TorchScript, torch.compile, each
with and without CUDA graphs; ONNX Runtime by CUDA and TensorRT where it is installed), the most telling first, until
the time is over. The answers of every program are compared with those of the network in float32. Writes gpu.md, gpu.csv
and gpu.json after every group of cells, so that an interrupt (Ctrl-C) loses none.
So far it ran on a CPU (`--device cpu --quick`) and not on a GPU: CUDA graphs, ONNX Runtime by CUDA and TensorRT, and
the memory figures are untested.

Beside a CUDA build of torch and numpy it needs only Python sources: this checkout, and PyTorchVideo with a few small
packages. Where they are not installed, bring them in a folder, made anywhere with pip:

    python -m pip install --no-deps --target .cache/gpu-packages \\
        pytorchvideo==0.1.5 fvcore iopath portalocker termcolor tabulate tqdm
    PYTHONPATH=export:server:.cache/gpu-packages python -m benchmarks.gpu
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.gpu.machine import describe_gpu
from benchmarks.gpu.measure import ModelMeasurement
from benchmarks.gpu.meter import Meter
from benchmarks.gpu.outcomes import MIN_AGREEMENT, Outcomes
from benchmarks.gpu.plan import BASELINE, FIRST_BATCHES, LATER_BATCHES, PRECISIONS, RUNTIMES, Group, plan_groups
from benchmarks.gpu.programs import ProgramFactory, find_obstacle
from benchmarks.gpu.report import write_report
from benchmarks.gpu.schedule import Budget, Schedule
from benchmarks.harness.results import CACHE, RESULTS
from clipserve_export.specs import SPECS
from clipserve_export.weights import offline_weights


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure, and how thoroughly; by default as the committed results."""

    models: Sequence[str] = ("x3d_m", "mvit_base_16x4")
    batches: Sequence[int] = (*FIRST_BATCHES, *LATER_BATCHES)
    precisions: Sequence[str] = PRECISIONS
    runtimes: Sequence[str] = RUNTIMES
    rounds: int = 5
    min_seconds: float = 0.03  # of one measurement
    compared_clips: int = 32
    weights: str = "random"

    def weights_of(self, model: str) -> str:
        """`motion` comes with weights; for the others only random ones need no download."""
        return offline_weights(SPECS[model]) if self.weights == "random" else self.weights


# A rehearsal in seconds; its numbers mean nothing.
QUICK = Settings(
    models=("motion",),
    batches=(2, 1),
    precisions=("bf16", "fp32"),
    runtimes=("eager", "torchscript", "torchscript+graph", "onnxruntime-cuda"),
    rounds=1,
    min_seconds=0.002,
    compared_clips=4,
)


def measure(settings: Settings, device: torch.device, budget: Budget, folder: Path) -> str:
    """Measure until everything is done, the time is over or Ctrl-C; returns the page that was written."""
    models = tuple(SPECS) if "all" in settings.models else tuple(settings.models)
    meter = Meter(device, min_seconds=settings.min_seconds)
    precisions = dict.fromkeys((*settings.precisions, BASELINE.precision))
    sizes = (4096, 8192) if meter.on_gpu else (512,)
    rates = {precision: meter.matrix_rate(precision, sizes) for precision in precisions}
    outcomes, measurements = Outcomes(), {}
    for model in models:
        weights = settings.weights_of(model)
        outcomes.min_agreement[model] = 0.0 if weights == "random" else MIN_AGREEMENT
        factory = ProgramFactory(SPECS[model], weights=weights, device=device)
        options = {"rounds": settings.rounds, "compared_clips": settings.compared_clips}
        measurements[model] = ModelMeasurement(SPECS[model], factory, meter, budget, outcomes, **options)
    possible = []
    planned = plan_groups(models, batches=settings.batches, precisions=settings.precisions, runtimes=settings.runtimes)
    for group in planned:
        if all(find_obstacle(engine, device) for engine in group.engines[1:]):
            add_missing(outcomes, group, device)
        else:
            possible.append(group)
    schedule = Schedule(possible, budget, lambda group: measurements[group.model].expect(group))
    try:
        for group in schedule:
            measurements[group.model].measure(group)
            write_report(folder, outcomes, describe_gpu(device), rates)
            so_far = f"{len(outcomes.measured)} cells so far, {budget.left:.0f} s left"
            print(f"{group}: {so_far}", flush=True)
    except KeyboardInterrupt:
        print("interrupted; the results so far are written", flush=True)
    finally:
        for group in schedule.left_out():
            add_missing(outcomes, group, device)
        page = write_report(folder, outcomes, describe_gpu(device), rates)
        print(outcomes.summarise_missing(), flush=True)
    return page


def add_missing(outcomes: Outcomes, group: Group, device: torch.device) -> None:
    """Add the cells of a group that was not measured, each with its reason."""
    for engine in group.engines:
        if engine == BASELINE:
            continue  # it runs in other groups, too
        obstacle = find_obstacle(engine, device)
        if obstacle:
            outcomes.add_missing(group.cell(engine), "could not be tested", obstacle)
        else:
            outcomes.add_missing(group.cell(engine), "cut off", "the time was over")


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="or 'all' (default x3d_m and mvit_base_16x4)")
    parser.add_argument("--minutes", type=float, default=7.5, help="when to stop, with the start (default 7.5)")
    parser.add_argument("--batches", type=int, nargs="+", help="clips in a batch (default 1 to 32)")
    parser.add_argument("--precisions", nargs="+", help="of fp32, tf32, fp16, bf16")
    parser.add_argument("--runtimes", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, help="turns of each program (default 5)")
    parser.add_argument("--weights", default="random", help="random, pretrained, or a checkpoint")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu rehearses the program")
    parser.add_argument("--quick", action="store_true", help="motion, two small batches, short rounds: a rehearsal")
    parser.add_argument("--out", type=Path, help="where to write (default benchmarks/results; on a CPU, .cache)")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    arguments = read_arguments()
    try:
        from clipserve_export.zoo import pytorchvideo

        for module in ("models.hub.x3d", "models.hub.vision_transformers"):
            pytorchvideo(module)
    except ImportError as error:
        sys.exit(f"{error}. The networks need PyTorchVideo; python -m benchmarks.gpu --help says how to bring it")
    budget = Budget(arguments.minutes * 60)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu --quick rehearses the program without one")
    chosen = {name: getattr(arguments, name) for name in ("models", "batches", "precisions", "runtimes", "rounds")}
    given = {name: value for name, value in chosen.items() if value}
    settings = replace(QUICK if arguments.quick else Settings(), weights=arguments.weights, **given)
    logging.disable(logging.WARNING)  # compilers' progress
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the results so far are written
    folder = arguments.out or (RESULTS if device.type == "cuda" else CACHE / "gpu-rehearsal")
    print(measure(settings, device, budget, folder))


if __name__ == "__main__":
    main()
