"""The measurement of networks on a GPU, rehearsed on the CPU: its cells, its clock, its tables."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipserve_export.specs import SPECS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from gpu_matrix.budget import Budget  # noqa: E402
from gpu_matrix.cells import BASELINE, Engine, Group, plan_groups  # noqa: E402
from gpu_matrix.machine import describe_machine, processor_name  # noqa: E402
from gpu_matrix.meter import Meter  # noqa: E402
from gpu_matrix.outcomes import Book  # noqa: E402
from gpu_matrix.programs import Networks, Program, Workshop  # noqa: E402
from gpu_matrix.report import write_report  # noqa: E402
from gpu_matrix.rounds import Match  # noqa: E402

MOTION, CPU = SPECS["motion"], torch.device("cpu")
TRACED, EAGER, HALF = (
    Engine("torchscript", "fp32", "channels_last_3d"),
    Engine("eager", "fp32", "contiguous"),
    Engine("eager", "bf16", "channels_last_3d"),
)
RATES = {"fp32": 1e12, "bf16": 2e12}


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(MOTION, weights="pretrained", device=CPU)


class Changed:
    """A workshop in which one engine's program is another."""

    def __init__(self, networks: Networks, engine: Engine, make: Callable[[], Program]) -> None:
        self._networks, self._engine, self._make = networks, engine, make

    def prepare(self, engine: Engine) -> Program:
        return self._make() if engine == self._engine else self._networks.prepare(engine)


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def play(workshop: Workshop, *groups: Group, budget: Budget | None = None) -> Book:
    book = Book()
    match = Match(
        MOTION, workshop, Meter(CPU, least_seconds=0.001), budget or Budget(600), book, rounds=2, compared_clips=4
    )
    for group in groups:
        match.play(group)
    return book


def test_one_command_writes_the_page_the_cells_and_the_machine(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith(f"# Networks on {processor_name()}")
    assert "* motion, 2 at once: " in page
    assert "CUDA graphs need a GPU" in page
    assert json.loads((tmp_path / "gpu.json").read_text())["operations_a_clip"]["motion"] > 1e7
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["outcome"] == "measured"]
    assert Counter(row["runtime"] for row in measured) == {"baseline": 2, "eager": 4, "torchscript": 8}
    assert all(float(row["clips_a_second"]) > 0 for row in measured)
    assert all(row["holds"] == "yes" for row in measured if row["precision"] == "fp32")
    assert len({tuple(row[name] for name in list(row)[:5]) for row in rows}) == len(rows), "a cell came twice"


def test_every_planned_cell_is_measured_or_missing_with_a_reason_when_the_time_ends(networks: Networks) -> None:
    groups = plan_groups(["motion"], batches=(8, 1, 2), precisions=("fp32",), runtimes=("eager", "torchscript"))
    book = play(networks, *groups, budget=Budget(12, Clock()))
    planned = {group.cell(engine) for group in groups for engine in group.engines}
    done, missing = {m.cell for m in book.measured}, {m.cell for m in book.missing}
    assert done | missing == planned
    assert not done & missing
    assert done
    assert {m.kind for m in book.missing} == {"cut off"}
    assert min(m.cell.batch for m in book.missing) < 8, "the first group was to be finished first"


def test_a_compiler_is_not_started_when_its_time_is_not_left(networks: Networks) -> None:
    compiled = Engine("compile", "fp32", "channels_last_3d")
    book = play(networks, Group("motion", 1, (BASELINE, compiled)), budget=Budget(59))
    assert [(m.cell.engine, m.kind) for m in book.missing] == [(compiled, "cut off")]


def test_a_cell_that_fails_is_reported_and_the_others_go_on(networks: Networks) -> None:
    def run_out() -> Program:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB\nand so on")

    book = play(Changed(networks, EAGER, run_out), Group("motion", 2, (BASELINE, EAGER, TRACED)))
    (missing,) = book.missing
    assert (missing.cell.engine, missing.kind) == (EAGER, "failed")
    assert missing.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 40 GiB"
    assert [m.cell.engine for m in book.measured] == [BASELINE, TRACED]


def test_the_fastest_is_recommended_only_if_its_answers_hold(networks: Networks, tmp_path: Path) -> None:
    """The same answer to everything is quickly given."""

    def make() -> Program:
        answer = torch.full((2, 12), 1 / 12), torch.zeros(2, MOTION.feature_size)
        return lambda clip: answer

    book = play(Changed(networks, EAGER, make), Group("motion", 2, (BASELINE, EAGER, TRACED, HALF)))
    by_engine = {m.cell.engine: m for m in book.measured}
    assert max(book.measured, key=lambda m: m.gain).cell.engine == EAGER
    assert not by_engine[EAGER].holds
    best = book.recommend("motion", 2, ("baseline", "eager", "torchscript"))
    assert best == max((m for m in book.measured if m.holds), key=lambda m: m.gain)
    assert best is not None
    page = write_report(tmp_path, book, describe_machine(CPU), RATES)
    assert f"* motion, 2 at once: {best.cell.engine}: " in page
    assert "%) *" in next(line for line in page.splitlines() if line.startswith(f"| {EAGER}"))


def test_answers_are_compared_on_other_clips_than_those_that_are_timed(networks: Networks) -> None:
    """A recording that goes on giving the first clip's answer does not hold."""
    program = networks.prepare(TRACED)

    def remember() -> Program:
        answers: list[tuple[Tensor, Tensor]] = []

        def run(clip: Tensor) -> tuple[Tensor, Tensor]:
            if not answers:
                answers.append(program(clip))
            return answers[0]

        return run

    book = play(Changed(networks, EAGER, remember), Group("motion", 2, (BASELINE, EAGER)))
    assert {m.cell.engine: m.holds for m in book.measured} == {BASELINE: True, EAGER: False}


def test_an_interrupt_leaves_what_was_measured_in_the_book(networks: Networks) -> None:
    program = networks.prepare(EAGER)

    def make() -> Program:
        calls = []

        def run(clip: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(clip)
            if len(calls) > 10:
                raise KeyboardInterrupt
            return program(clip)

        return run

    book = Book()
    workshop = Changed(networks, EAGER, make)
    match = Match(MOTION, workshop, Meter(CPU, least_seconds=0.001), Budget(60), book, rounds=999, compared_clips=4)
    with pytest.raises(KeyboardInterrupt):
        match.play(Group("motion", 1, (BASELINE, TRACED, EAGER)))
    assert [m.cell.engine for m in book.measured][:2] == [BASELINE, TRACED]


def test_the_whole_matrix_begins_with_what_tells_most() -> None:
    groups = plan_groups(["x3d_m", "mvit_base_16x4"])
    assert [(group.model, group.batch) for group in groups[:3]] == [("x3d_m", 8), ("x3d_m", 1), ("x3d_m", 32)]
    cells = [group.cell(engine) for group in groups for engine in group.engines if engine != BASELINE]
    assert len(set(cells)) == len(cells), "a cell is planned twice"
    assert {cell.batch for cell in cells} == {1, 2, 4, 8, 16, 32}
    runtimes = list(dict.fromkeys(cell.engine.runtime for cell in cells))
    assert runtimes[:5] == ["eager", "torchscript", "torchscript+graph", "compile", "compile+graph"]
