"""The measurement of networks on a GPU, rehearsed on the CPU: its cells, its schedule, its tables."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu.machine import describe_gpu
from benchmarks.gpu.measure import ModelMeasurement
from benchmarks.gpu.meter import Meter
from benchmarks.gpu.outcomes import Outcomes
from benchmarks.gpu.plan import BASELINE, RUNTIMES, Engine, Group, plan_groups
from benchmarks.gpu.programs import Factory, Program, ProgramFactory, conditions
from benchmarks.gpu.report import write_report
from benchmarks.gpu.schedule import Budget, Schedule
from benchmarks.harness.machine import processor_name
from benchmarks.harness.results import ROOT
from torch import Tensor

from clipserve_export.specs import SPECS

MOTION, CPU = SPECS["motion"], torch.device("cpu")
TRACED, EAGER, HALF = (
    Engine("torchscript", "fp32", "channels_last_3d"),
    Engine("eager", "fp32", "contiguous"),
    Engine("eager", "bf16", "channels_last_3d"),
)
RATES = {"fp32": 1e12, "bf16": 2e12}


@pytest.fixture(scope="module")
def factory() -> ProgramFactory:
    return ProgramFactory(MOTION, weights="pretrained", device=CPU)


class Changed:
    """A factory in which the program of one engine is another."""

    def __init__(self, factory: ProgramFactory, engine: Engine, make: Callable[[], Program]) -> None:
        self._factory, self._engine, self._make = factory, engine, make

    def make(self, engine: Engine) -> Program:
        return self._make() if engine == self._engine else self._factory.make(engine)


class Clock:
    """Each reading takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def measure(factory: Factory, *groups: Group, budget: Budget | None = None) -> Outcomes:
    outcomes = Outcomes()
    meter = Meter(CPU, min_seconds=0.001)
    model = ModelMeasurement(MOTION, factory, meter, budget or Budget(600), outcomes, rounds=2, compared_clips=4)
    for group in groups:
        model.measure(group)
    return outcomes


@pytest.mark.long
def test_one_command_writes_the_page_the_cells_and_the_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=ROOT)
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith(f"# Networks on {processor_name()}")
    assert "* motion, batch 2: " in page
    assert "CUDA graphs need a GPU" in page
    assert json.loads((tmp_path / "gpu.json").read_text())["operations_a_clip"]["motion"] > 1e7
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["outcome"] == "measured"]
    assert Counter(row["runtime"] for row in measured) == {"baseline": 2, "eager": 4, "torchscript": 8}
    assert all(float(row["clips_a_second"]) > 0 for row in measured)
    assert all(row["holds"] == "yes" for row in measured if row["precision"] == "fp32")
    assert len({tuple(row[name] for name in list(row)[:5]) for row in rows}) == len(rows), "a cell came twice"


def test_torchscript_uses_tf32_where_its_engine_does_and_not_where_the_one_before_did() -> None:
    factory = ProgramFactory(MOTION, weights="pretrained", device=CPU)
    for precision, before in (("tf32", "fp32"), ("fp32", "tf32")):
        with conditions(Engine("eager", before, "contiguous")):
            pass
        program: Any = factory.make(Engine("torchscript", precision, "contiguous"))
        convolutions = program.graph.findAllNodes("aten::_convolution")
        assert {list(node.inputs())[-1].toIValue() for node in convolutions} == {precision == "tf32"}


def test_every_planned_cell_is_measured_or_missing_with_a_reason_when_the_time_ends(factory: ProgramFactory) -> None:
    groups = plan_groups(["motion"], batches=(8, 1, 2), precisions=("fp32",), runtimes=("eager", "torchscript"))
    outcomes = measure(factory, *groups, budget=Budget(12, Clock()))
    planned = {group.cell(engine) for group in groups for engine in group.engines}
    done, missing = {m.cell for m in outcomes.measured}, {m.cell for m in outcomes.missing}
    assert done | missing == planned
    assert not done & missing
    assert done
    assert {m.kind for m in outcomes.missing} == {"cut off"}
    assert min(m.cell.batch for m in outcomes.missing) < 8, "the first group was to be finished first"


def test_a_compiler_is_not_started_when_its_time_is_not_left(factory: ProgramFactory) -> None:
    compiled = Engine("compile", "fp32", "channels_last_3d")
    outcomes = measure(factory, Group("motion", 1, (BASELINE, compiled)), budget=Budget(59))
    assert [(m.cell.engine, m.kind) for m in outcomes.missing] == [(compiled, "cut off")]


def test_a_cell_that_fails_is_reported_and_the_others_go_on(factory: ProgramFactory) -> None:
    def run_out() -> Program:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB\nand so on")

    outcomes = measure(Changed(factory, EAGER, run_out), Group("motion", 2, (BASELINE, EAGER, TRACED)))
    (missing,) = outcomes.missing
    assert (missing.cell.engine, missing.kind) == (EAGER, "failed")
    assert missing.reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 40 GiB"
    assert [m.cell.engine for m in outcomes.measured] == [BASELINE, TRACED]


def test_the_fastest_is_recommended_only_if_its_answers_hold(factory: ProgramFactory, tmp_path: Path) -> None:
    """The same answer to everything is quickly given."""

    def make() -> Program:
        answer = torch.full((2, 12), 1 / 12), torch.zeros(2, MOTION.feature_size)
        return lambda clip: answer

    outcomes = measure(Changed(factory, EAGER, make), Group("motion", 2, (BASELINE, EAGER, TRACED, HALF)))
    by_engine = {m.cell.engine: m for m in outcomes.measured}
    assert max(outcomes.measured, key=lambda m: m.gain).cell.engine == EAGER
    assert not by_engine[EAGER].holds
    best = outcomes.recommend("motion", 2, ("baseline", "eager", "torchscript"))
    assert best == max((m for m in outcomes.measured if m.holds), key=lambda m: m.gain)
    assert best is not None
    page = write_report(tmp_path, outcomes, describe_gpu(CPU), RATES)
    assert f"* motion, batch 2: {best.cell.engine}: " in page
    assert "%) *" in next(line for line in page.splitlines() if line.startswith(f"| {EAGER}"))


def test_answers_are_compared_on_other_clips_than_those_that_are_timed(factory: ProgramFactory) -> None:
    """A CUDA graph that keeps giving the answer to the first clip does not hold."""
    program = factory.make(TRACED)

    def remember() -> Program:
        answers: list[tuple[Tensor, Tensor]] = []

        def run(clip: Tensor) -> tuple[Tensor, Tensor]:
            if not answers:
                answers.append(program(clip))
            return answers[0]

        return run

    outcomes = measure(Changed(factory, EAGER, remember), Group("motion", 2, (BASELINE, EAGER)))
    assert {m.cell.engine: m.holds for m in outcomes.measured} == {BASELINE: True, EAGER: False}


def test_an_interrupt_leaves_what_was_measured_in_the_outcomes(factory: ProgramFactory) -> None:
    program = factory.make(EAGER)

    def make() -> Program:
        calls = []

        def run(clip: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(clip)
            if len(calls) > 10:
                raise KeyboardInterrupt
            return program(clip)

        return run

    outcomes = Outcomes()
    meter = Meter(CPU, min_seconds=0.001)
    changed = Changed(factory, EAGER, make)
    model = ModelMeasurement(MOTION, changed, meter, Budget(60), outcomes, rounds=999, compared_clips=4)
    with pytest.raises(KeyboardInterrupt):
        model.measure(Group("motion", 1, (BASELINE, TRACED, EAGER)))
    assert [m.cell.engine for m in outcomes.measured][:2] == [BASELINE, TRACED]


def test_each_family_of_a_model_begins_with_what_tells_most() -> None:
    groups = plan_groups(["x3d_m", "mvit_base_16x4"])
    cells = [group.cell(engine) for group in groups for engine in group.engines if engine != BASELINE]
    assert len(set(cells)) == len(cells), "a cell is planned twice"
    assert {cell.batch for cell in cells} == {1, 2, 4, 8, 16, 32}
    assert {cell.engine.runtime for cell in cells} == set(RUNTIMES) - {"baseline"}
    begin = [(cell.engine.runtime, cell.engine.precision, cell.engine.layout, cell.batch) for cell in cells]
    assert begin[0] == ("eager", "fp16", "contiguous", 8)
    assert all(len({engine.family for engine in group.engines[1:]}) == 1 for group in groups)


class Workday:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def spend(minutes: float, *, direct: float, compiled: float, files: float, needs: float = 0.0) -> Counter[str]:
    """Measure two models for so long, where a group takes so many seconds: the groups that each had of a family."""
    clock, had = Workday(), Counter[str]()
    takes = {"direct": direct, "compiled": compiled, "files": files}
    budget = Budget(minutes * 60, clock)
    schedule = Schedule(
        plan_groups(["x3d_m", "mvit_base_16x4"]),
        budget,
        lambda group: needs if group.family == "compiled" else 0.0,
    )
    for group in schedule:
        had[f"{group.model} {group.family}"] += 1
        clock.seconds += takes[group.family]
    planned = len(plan_groups(["x3d_m", "mvit_base_16x4"]))
    assert had.total() + len(schedule.left_out()) == planned
    assert clock.seconds < minutes * 60 + max(takes.values())
    return had


def test_no_model_and_no_runtime_takes_the_time_of_the_others() -> None:
    """Two models, of eight parts of the time four for what compiles, two for files and two for the rest."""
    had = spend(4, direct=5, compiled=60, files=15)
    assert had == {
        "x3d_m direct": 6,
        "mvit_base_16x4 direct": 6,
        "x3d_m files": 2,
        "mvit_base_16x4 files": 2,
        "x3d_m compiled": 1,
        "mvit_base_16x4 compiled": 1,
    }


def test_what_one_does_not_need_others_use() -> None:
    had = spend(60, direct=1, compiled=2, files=1)
    assert had.total() == len(plan_groups(["x3d_m", "mvit_base_16x4"]))


def test_a_compiler_that_needs_more_than_its_part_has_its_turn_when_the_others_had_theirs() -> None:
    had = spend(3, direct=5, compiled=70, files=5, needs=70)
    assert had["x3d_m compiled"] == 1
    assert min(had[f"{model} {family}"] for model in ("x3d_m", "mvit_base_16x4") for family in ("direct", "files")) >= 4


def test_one_line_tells_what_was_not_measured(factory: ProgramFactory) -> None:
    outcomes = measure(factory, Group("motion", 2, (BASELINE, EAGER)))
    assert outcomes.summarise_missing() == "everything planned was measured"
    for batch in (1, 2):
        outcomes.add_missing(Group("motion", batch, (BASELINE, TRACED)).cell(TRACED), "cut off", "the time was over")
    assert outcomes.summarise_missing() == "not measured: motion torchscript (2 cells cut off)"
