"""The measurement of one model, group by group: programs take turns, and one that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.gpu.meter import Meter
from benchmarks.gpu.outcomes import MIN_AGREEMENT, Closeness, Measured, Outcomes, compare_answers
from benchmarks.gpu.plan import BASELINE, Engine, Group
from benchmarks.gpu.programs import CudaGraph, Factory, Program, conditions, find_obstacle
from benchmarks.gpu.schedule import Budget
from benchmarks.harness.rounds import Samples
from clipserve_export.clips import random_clips
from clipserve_export.specs import ModelSpec


@dataclass
class Contestant:
    """A program at one batch, and the times of its rounds."""

    engine: Engine
    program: Program
    mebibytes: float | None
    prepare_seconds: float
    closeness: Closeness
    seconds: list[float] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)


class ModelMeasurement:
    """The groups of one model. Programs are kept from one group to the next.

    Args:
        factory: makes the programs.
        outcomes: the results go there.
        rounds: turns of each program.
        compared_clips: clips on which answers are compared.
    """

    def __init__(
        self,
        spec: ModelSpec,
        factory: Factory,
        meter: Meter,
        budget: Budget,
        outcomes: Outcomes,
        *,
        rounds: int,
        compared_clips: int,
    ) -> None:
        self._factory, self._meter, self._budget, self._outcomes = factory, meter, budget, outcomes
        self._model = spec.name
        self._rounds = rounds
        self._programs: dict[Engine, Program] = {}
        self._settled: set[tuple[Engine, bool]] = set()
        self._clips = random_clips(spec.geometry, batch=compared_clips, views=1, seed=3).to(meter.device)
        self._expected: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def expect(self, group: Group) -> float:
        """Seconds that preparing a group may take."""
        new = [engine for engine in group.engines if self._variant(group, engine) not in self._settled]
        return max((self._budget.expect(group.cell(engine)) for engine in new), default=0.0)

    def measure(self, group: Group) -> None:
        """Prepare the programs of a group, let them take turns, add the outcomes, also on an interrupt."""
        clip = self._batch(group.batch)
        contestants: list[Contestant] = []
        for engine in group.engines:
            contestant = self._prepare(group, engine, clip)
            if contestant:
                contestants.append(contestant)
            elif engine == BASELINE:
                reason = "the baseline did not run, or the time was over"
                for other in group.engines[1:]:
                    self._outcomes.add_missing(group.cell(other), "cut off", reason)
                return
        try:
            self._take_turns(group, contestants, clip)
        finally:
            self._add_measured(group, [contestant for contestant in contestants if contestant.round_trips])
            for contestant in contestants:
                if isinstance(contestant.program, CudaGraph):
                    contestant.program.release()

    def _batch(self, size: int) -> Tensor:
        return next(iter(self._batches(size))).contiguous()

    def _batches(self, size: int) -> Iterable[Tensor]:
        clips = self._clips
        if size > len(clips):
            clips = clips.repeat(-(-size // len(clips)), 1, 1, 1, 1, 1)
        return (clips[start : start + size] for start in range(0, len(clips) - size + 1, size))

    def _prepare(self, group: Group, engine: Engine, clip: Tensor) -> Contestant | None:
        cell = group.cell(engine)
        obstacle = find_obstacle(engine, self._meter.device)
        if obstacle:
            self._outcomes.add_missing(cell, "could not be tested", obstacle)
            return None
        variant = self._variant(group, engine)
        if not self._budget.allows(cell, prepared=variant in self._settled):
            if not self._outcomes.has(cell):
                self._outcomes.add_missing(cell, "cut off", "too little time was left")
            return None
        started = time.perf_counter()
        try:
            if engine not in self._programs:
                self._programs[engine] = self._factory.make(engine)
            program = self._programs[engine]
            with conditions(engine):
                mebibytes = self._meter.settle(engine, program, clip)
            seconds = time.perf_counter() - started
            self._settled.add(variant)
            self._budget.add(cell, seconds)
            if engine == BASELINE:
                self._set_expected(program, group.batch)
            return Contestant(engine, program, mebibytes, seconds, self._compare(engine, program, group.batch))
        except Exception as error:  # compilers, drivers and missing memory raise anything
            self._fail(group, engine, error)
        self._forget_failure()
        return None

    def _variant(self, group: Group, engine: Engine) -> tuple[Engine, bool]:
        # A compiler makes one program for a single clip and another for more.
        return engine, group.batch == 1 and engine.family == "compiled"

    def _fail(self, group: Group, engine: Engine, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        self._outcomes.add_missing(group.cell(engine), "failed", f"{type(error).__name__}: {lines[0][:200]}")
        self._programs.pop(engine, None)

    def _forget_failure(self) -> None:
        # Not in the handler: there, the traceback holds the tensors of the failed run.
        if self._meter.on_gpu:
            torch.cuda.empty_cache()

    def _set_expected(self, program: Program, batch: int) -> None:
        if self._model not in self._outcomes.operations:
            with conditions(BASELINE):
                self._outcomes.operations[self._model] = self._meter.operations(program, self._batch(1))
        if batch not in self._expected:
            self._expected[batch] = self._answers(BASELINE, program, batch)

    def _answers(self, engine: Engine, program: Program, batch: int) -> list[tuple[Tensor, Tensor]]:
        # Cloned: a CUDA graph overwrites its last answer.
        with conditions(engine):
            answers = (program(clip.contiguous()) for clip in self._batches(batch))
            return [(scores.clone(), features.clone()) for scores, features in answers]

    def _compare(self, engine: Engine, program: Program, batch: int) -> Closeness:
        return compare_answers(self._answers(engine, program, batch), self._expected[batch])

    def _take_turns(self, group: Group, contestants: list[Contestant], clip: Tensor) -> None:
        host_clip = self._meter.host_clip(clip)
        for turn in range(self._rounds):
            if turn and self._budget.left < 0:
                return
            for contestant in list(contestants):
                try:
                    self._take_turn(contestant, clip, host_clip)
                except Exception as error:
                    contestants.remove(contestant)
                    self._fail(group, contestant.engine, error)
            self._forget_failure()

    def _take_turn(self, contestant: Contestant, clip: Tensor, host_clip: Tensor) -> None:
        with conditions(contestant.engine):
            contestant.seconds.append(self._meter.seconds_per_call(lambda: contestant.program(clip)))
            contestant.round_trips.append(self._meter.round_trip(contestant.program, host_clip))

    def _add_measured(self, group: Group, contestants: list[Contestant]) -> None:
        if not contestants or contestants[0].engine != BASELINE:
            return
        baseline = Samples(tuple(contestants[0].seconds)).median
        for contestant in contestants:
            if contestant.engine == BASELINE and self._outcomes.has(group.cell(BASELINE)):
                continue  # measured in an earlier group
            self._outcomes.measured.append(
                Measured(
                    cell=group.cell(contestant.engine),
                    rounds=Samples(tuple(contestant.seconds)),
                    round_trip_seconds=Samples(tuple(contestant.round_trips)).median,
                    baseline_seconds=baseline,
                    mebibytes=contestant.mebibytes,
                    prepare_seconds=contestant.prepare_seconds,
                    closeness=contestant.closeness,
                    holds=contestant.closeness.holds(
                        contestant.engine.precision, self._outcomes.min_agreement.get(group.model, MIN_AGREEMENT)
                    ),
                )
            )
