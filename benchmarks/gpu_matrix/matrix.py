"""The whole measurement: group after group until the time is over, written down after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clipserve_export.specs import SPECS
from gpu_matrix.budget import Budget
from gpu_matrix.cells import BASELINE, FIRST_BATCHES, LATER_BATCHES, PRECISIONS, RUNTIMES, Group, plan_groups
from gpu_matrix.machine import describe_machine
from gpu_matrix.meter import Meter
from gpu_matrix.outcomes import LEAST_AGREEMENT, Book
from gpu_matrix.programs import Networks, why_not
from gpu_matrix.report import write_report
from gpu_matrix.rounds import Match
from gpu_matrix.turns import Turns


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What to measure, and how thoroughly."""

    models: Sequence[str]
    batches: Sequence[int]
    precisions: Sequence[str]
    runtimes: Sequence[str]
    rounds: int
    least_seconds: float  # of one turn
    compared_clips: int
    weights: str = "random"

    def weights_of(self, model: str) -> str:
        """`motion` has weights of its own; of the others only random ones are to be had without a download."""
        return "pretrained" if self.weights == "random" and SPECS[model].family == "motion" else self.weights


def whole_setting() -> Setting:
    """What the committed numbers are made with."""
    return Setting(
        models=("x3d_m", "mvit_base_16x4"),
        batches=(*FIRST_BATCHES, *LATER_BATCHES),
        precisions=PRECISIONS,
        runtimes=RUNTIMES,
        rounds=5,
        least_seconds=0.03,
        compared_clips=32,
    )


def quick_setting() -> Setting:
    """A rehearsal in seconds; its numbers mean nothing."""
    return Setting(
        models=("motion",),
        batches=(2, 1),
        precisions=("bf16", "fp32"),
        runtimes=("eager", "torchscript", "torchscript+graph", "onnxruntime-cuda"),
        rounds=1,
        least_seconds=0.002,
        compared_clips=4,
    )


def measure_matrix(setting: Setting, device: torch.device, budget: Budget, folder: Path) -> str:
    """Measure until all is done, the time is over or somebody interrupts; gives the page that was written."""
    models = tuple(SPECS) if "all" in setting.models else tuple(setting.models)
    meter = Meter(device, least_seconds=setting.least_seconds)
    precisions = dict.fromkeys((*setting.precisions, BASELINE.precision))
    sizes = (4096, 8192) if meter.on_gpu else (512,)
    rates = {precision: meter.matrix_rate(precision, sizes) for precision in precisions}
    book = Book()
    matches = {}
    for model in models:
        spec, weights = SPECS[model], setting.weights_of(model)
        book.least_agreement[model] = 0.0 if weights == "random" else LEAST_AGREEMENT
        networks = Networks(spec, weights=weights, device=device)
        matches[model] = Match(
            spec, networks, meter, budget, book, rounds=setting.rounds, compared_clips=setting.compared_clips
        )
    groups = []
    for group in plan_groups(models, batches=setting.batches, precisions=setting.precisions, runtimes=setting.runtimes):
        if all(why_not(engine, device) for engine in group.engines[1:]):
            note_missing(book, group, device)
        else:
            groups.append(group)
    turns = Turns(groups, budget, lambda group: matches[group.model].need(group))
    try:
        for group in turns:
            matches[group.model].play(group)
            write_report(folder, book, describe_machine(device), rates)
            engine = group.engines[-1]
            runtimes = ", ".join(engine.runtime for engine in group.engines[1:])
            so_far = f"{len(book.measured)} cells so far, {budget.left:.0f} s left"
            print(
                f"{group.model}, {group.batch} at once, {engine.precision}, {engine.layout}, {runtimes}: {so_far}",
                flush=True,
            )
    except KeyboardInterrupt:
        print("interrupted: what was measured is written", flush=True)
    finally:
        for group in turns.left_out():
            note_missing(book, group, device)
        page = write_report(folder, book, describe_machine(device), rates)
        print(book.summarise_missing(), flush=True)
    return page


def note_missing(book: Book, group: Group, device: torch.device) -> None:
    """Note a group that had no turn, each cell with its reason."""
    for engine in group.engines:
        if engine == BASELINE:
            continue  # It runs along in other groups.
        reason = why_not(engine, device)
        book.miss(group.cell(engine), "could not be tested" if reason else "cut off", reason or "the time was over")
