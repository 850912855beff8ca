"""Contestants take turns at one batch; what fails or has no time left is noted and the others go on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clipserve_export.clips import random_clips
from clipserve_export.specs import ModelSpec
from gpu_matrix.budget import Budget
from gpu_matrix.cells import BASELINE, Engine, Group
from gpu_matrix.graphs import Graphed
from gpu_matrix.meter import Meter
from gpu_matrix.outcomes import LEAST_AGREEMENT, Book, Closeness, Measured, compare_answers
from gpu_matrix.programs import Program, Workshop, conditions, why_not

COMPARED_CLIPS = 32


@dataclass
class Contestant:
    """A program at one batch, and what its rounds took."""

    engine: Engine
    program: Program
    mebibytes: float | None
    prepare_seconds: float
    closeness: Closeness
    seconds: list[float] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)


class Match:
    """The groups of one model. Programs are kept from one to the next.

    Args:
        spec: of the model.
        workshop: makes its programs.
        meter: measures them.
        budget: the time there is.
        book: where outcomes go.
        rounds: how many turns each contestant gets.
        compared_clips: how many clips answers are compared on.
    """

    def __init__(
        self,
        spec: ModelSpec,
        workshop: Workshop,
        meter: Meter,
        budget: Budget,
        book: Book,
        *,
        rounds: int,
        compared_clips: int = COMPARED_CLIPS,
    ) -> None:
        self._workshop, self._meter, self._budget, self._book = workshop, meter, budget, book
        self._model = spec.name
        self._rounds = rounds
        self._programs: dict[Engine, Program] = {}
        self._settled: set[tuple[Engine, bool]] = set()
        self._clips = random_clips(spec.geometry, batch=compared_clips, views=1, seed=3).to(meter.device)
        self._expected: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def need(self, group: Group) -> float:
        """Seconds that preparing its engines may take."""
        new = [engine for engine in group.engines if self._variant(group, engine) not in self._settled]
        return max((self._budget.expect(group.cell(engine)) for engine in new), default=0.0)

    def play(self, group: Group) -> None:
        """Prepare the group's engines, let them take turns, note what came of it, also when interrupted."""
        clip = self._batch(group.batch)
        contestants: list[Contestant] = []
        for engine in group.engines:
            contestant = self._enter(group, engine, clip)
            if contestant:
                contestants.append(contestant)
            elif engine == BASELINE:
                for other in group.engines[1:]:
                    self._book.miss(group.cell(other), "cut off", "the baseline did not run, or the time was over")
                return
        try:
            self._take_turns(group, contestants, clip)
        finally:
            self._write_down(group, [contestant for contestant in contestants if contestant.round_trips])
            for contestant in contestants:
                if isinstance(contestant.program, Graphed):
                    contestant.program.release()

    def _batch(self, size: int) -> Tensor:
        return next(iter(self._batches(size))).contiguous()

    def _batches(self, size: int) -> Iterable[Tensor]:
        clips = self._clips
        if size > len(clips):
            clips = clips.repeat(-(-size // len(clips)), 1, 1, 1, 1, 1)
        return (clips[start : start + size] for start in range(0, len(clips) - size + 1, size))

    def _enter(self, group: Group, engine: Engine, clip: Tensor) -> Contestant | None:
        cell = group.cell(engine)
        reason = why_not(engine, self._meter.device)
        if reason:
            self._book.miss(cell, "could not be tested", reason)
            return None
        variant = self._variant(group, engine)
        if not self._budget.allows(cell, prepared=variant in self._settled):
            if not self._book.has(cell):
                self._book.miss(cell, "cut off", "too little time was left")
            return None
        started = time.perf_counter()
        try:
            if engine not in self._programs:
                self._programs[engine] = self._workshop.prepare(engine)
            program = self._programs[engine]
            with conditions(engine):
                mebibytes = self._meter.settle(engine, program, clip)
            seconds = time.perf_counter() - started
            self._settled.add(variant)
            self._budget.note(cell, seconds)
            if engine == BASELINE:
                self._note_truth(program, group.batch)
            return Contestant(engine, program, mebibytes, seconds, self._compare(engine, program, group.batch))
        except Exception as error:  # whatever a compiler, a driver or a lack of memory comes up with
            self._fail(group, engine, error)
        self._forget_failure()
        return None

    def _variant(self, group: Group, engine: Engine) -> tuple[Engine, bool]:
        # A compiler makes a program for a single clip, and another one for more.
        return engine, group.batch == 1 and engine.family == "compiled"

    def _fail(self, group: Group, engine: Engine, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        self._book.miss(group.cell(engine), "failed", f"{type(error).__name__}: {lines[0][:200]}")
        self._programs.pop(engine, None)

    def _forget_failure(self) -> None:
        # Outside of the handler: while it runs, the traceback holds the failed run's tensors.
        if self._meter.on_gpu:
            torch.cuda.empty_cache()

    def _note_truth(self, program: Program, batch: int) -> None:
        if self._model not in self._book.operations:
            with conditions(BASELINE):
                self._book.operations[self._model] = self._meter.operations(program, self._batch(1))
        if batch not in self._expected:
            self._expected[batch] = self._answers(BASELINE, program, batch)

    def _answers(self, engine: Engine, program: Program, batch: int) -> list[tuple[Tensor, Tensor]]:
        # Cloned: a recorded graph writes over what it gave before.
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
            contestant.seconds.append(self._meter.pace(lambda: contestant.program(clip)))
            contestant.round_trips.append(self._meter.round_trip(contestant.program, host_clip))

    def _write_down(self, group: Group, contestants: list[Contestant]) -> None:
        if not contestants or contestants[0].engine != BASELINE:
            return
        baseline = statistics.median(contestants[0].seconds)
        for contestant in contestants:
            if contestant.engine == BASELINE and self._book.has(group.cell(BASELINE)):
                continue  # It ran along for the others' sake.
            middle = statistics.median(contestant.seconds)
            self._book.measured.append(
                Measured(
                    cell=group.cell(contestant.engine),
                    seconds=middle,
                    spread=(max(contestant.seconds) - min(contestant.seconds)) / middle,
                    round_trip_seconds=statistics.median(contestant.round_trips),
                    baseline_seconds=baseline,
                    mebibytes=contestant.mebibytes,
                    prepare_seconds=contestant.prepare_seconds,
                    closeness=contestant.closeness,
                    holds=contestant.closeness.holds(
                        contestant.engine.precision, self._book.least_agreement.get(group.model, LEAST_AGREEMENT)
                    ),
                )
            )
