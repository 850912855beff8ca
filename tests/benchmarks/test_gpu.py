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
from gpu_matrix.cells import BASELINE, RUNTIMES, Engine, Group, plan_groups  # noqa: E402
from gpu_matrix.machine import describe_machine, processor_name  # noqa: E402
from gpu_matrix.meter import Meter  # noqa: E402
from gpu_matrix.outcomes import Book  # noqa: E402
from gpu_matrix.programs import Networks, Program, Workshop  # noqa: E402
from gpu_matrix.report import write_report  # noqa: E402
from gpu_matrix.rounds import Match  # noqa: E402
from gpu_matrix.turns import Turns  # noqa: E402

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
    """A clock that moves when somebody works."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def spend(minutes: float, *, direct: float, compiled: float, files: float, needs: float = 0.0) -> Counter[str]:
    """Turns of two models for so long, where a group takes so many seconds: how many groups each had of a family."""
    clock, had = Workday(), Counter[str]()
    takes = {"direct": direct, "compiled": compiled, "files": files}
    budget = Budget(minutes * 60, clock)
    turns = Turns(
        plan_groups(["x3d_m", "mvit_base_16x4"]),
        budget,
        lambda group: needs if group.family == "compiled" else 0.0,
    )
    for group in turns:
        had[f"{group.model} {group.family}"] += 1
        clock.seconds += takes[group.family]
    planned = len(plan_groups(["x3d_m", "mvit_base_16x4"]))
    assert had.total() + len(turns.left_out()) == planned
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


def test_one_line_tells_what_was_not_measured(networks: Networks) -> None:
    book = play(networks, Group("motion", 2, (BASELINE, EAGER)))
    assert book.summarise_missing() == "everything planned was measured"
    for batch in (1, 2):
        book.miss(Group("motion", batch, (BASELINE, TRACED)).cell(TRACED), "cut off", "the time was over")
    assert book.summarise_missing() == "not measured: motion torchscript (2 cells cut off)"
