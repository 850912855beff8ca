"""The outcome of each cell, and whether its answers equal those of the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from benchmarks.gpu.plan import Cell
from benchmarks.harness.rounds import Samples
from clipserve_export.parity import Tolerance
from clipserve_export.precision import TOLERANCES

MIN_AGREEMENT = 0.95  # of best classes, with trained weights; with random ones all classes are near ties
Kind = Literal["could not be tested", "cut off", "failed"]


def tolerance_for(precision: str) -> Tolerance:
    """The tolerance of an export in this precision; TF32 has as many digits as fp16."""
    numbers = {"fp32": TOLERANCES["fp32"], "bf16": TOLERANCES["bf16"]}
    return numbers.get(precision, TOLERANCES["fp16"])


@dataclass(frozen=True)
class Closeness:
    """The distance of a program's answers from those of the network in float32, on the same clips."""

    score_error: float  # the largest difference of a probability
    feature_error: float  # the largest difference of a feature, over the largest feature
    agreement: float  # share of clips with the same best class
    clips: int

    def holds(self, precision: str, min_agreement: float) -> bool:
        """Whether it is within the tolerance of its precision; NaN is not."""
        allowed = tolerance_for(precision)
        return (
            self.score_error <= allowed.scores
            and self.feature_error <= allowed.features
            and self.agreement >= min_agreement
        )


def compare_answers(given: Sequence[tuple[Tensor, Tensor]], expected: Sequence[tuple[Tensor, Tensor]]) -> Closeness:
    """Compare batches of SCORES and FEATURES with those expected for the same clips."""
    scores, features = (torch.cat(column).float() for column in zip(*given, strict=True))
    right_scores, right_features = (torch.cat(column).float() for column in zip(*expected, strict=True))
    return Closeness(
        score_error=float((scores - right_scores).abs().max()),
        feature_error=float((features - right_features).abs().max() / right_features.abs().max()),
        agreement=float((scores.argmax(1) == right_scores.argmax(1)).float().mean()),
        clips=len(scores),
    )


@dataclass(frozen=True)
class Measured:
    """A cell that ran."""

    cell: Cell
    rounds: Samples  # seconds of a batch, with all data on the device
    round_trip_seconds: float  # of a batch, from the host's memory and back, one at a time
    baseline_seconds: float  # of the baseline in the same rounds
    mebibytes: float | None  # of a run, beside the weights
    prepare_seconds: float  # until the first answers
    closeness: Closeness
    holds: bool  # whether its answers are within the tolerance

    @property
    def seconds(self) -> float:
        """Of a batch; the median of the rounds."""
        return self.rounds.median

    @property
    def clips_a_second(self) -> float:
        """With batches back to back."""
        return self.cell.batch / self.seconds

    @property
    def gain(self) -> float:
        """Times as fast as the baseline."""
        return self.baseline_seconds / self.seconds


@dataclass(frozen=True)
class Missing:
    """A cell that did not run, and the reason."""

    cell: Cell
    kind: Kind
    reason: str


@dataclass
class Outcomes:
    """All outcomes, in the order of their measurement."""

    measured: list[Measured] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    operations: dict[str, int] = field(default_factory=dict)  # of one clip, by model
    min_agreement: dict[str, float] = field(default_factory=dict)  # of best classes that is enough, by model

    def add_missing(self, cell: Cell, kind: Kind, reason: str) -> None:
        """Add a cell that did not run."""
        self.missing.append(Missing(cell, kind, reason))

    def has(self, cell: Cell) -> bool:
        """Whether the cell was measured."""
        return any(m.cell == cell for m in self.measured)

    def summarise_missing(self) -> str:
        """One line: the cells that were not measured, by model, runtime and kind of reason."""
        counts = Counter((m.cell.model, m.cell.engine.runtime, m.kind) for m in self.missing)
        if not counts:
            return "everything planned was measured"
        missing = (f"{model} {runtime} ({count} cells {kind})" for (model, runtime, kind), count in counts.items())
        return f"not measured: {', '.join(missing)}"

    def recommend(self, model: str, batch: int, runtimes: Sequence[str]) -> Measured | None:
        """The fastest of these runtimes whose answers hold."""
        fit = [
            m
            for m in self.measured
            if (m.cell.model, m.cell.batch) == (model, batch) and m.cell.engine.runtime in runtimes and m.holds
        ]
        # By the gain over the baseline of the same rounds: other groups ran at other times.
        return max(fit, key=lambda m: m.gain, default=None)
