"""Evaluations of the same videos, side by side: several models, or several settings of one."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from clipserve.evaluation.evaluation import Evaluation
from clipserve.evaluation.metric_values import (
    METRICS,
    Interval,
    MetricValue,
    describe_interval,
    mcnemar_p,
    paired_interval,
    round_number,
)
from clipserve.evaluation.report import Report


@dataclass(frozen=True)
class Difference:
    """A metric of an evaluation minus the same metric of the baseline, over the videos that both answered.

    Attributes:
        metric: a key of METRICS.
        value: the difference; positive where the evaluation has more.
        interval: 95 %, paired; None for a single video, unless the metric is a share of videos.
    """

    metric: str
    value: float
    interval: Interval | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and 0.0 not in self.interval

    @property
    def is_better(self) -> bool:
        """Whether the difference is in favour of the evaluation."""
        return (self.value > 0) == METRICS[self.metric].more_is_better

    @property
    def verdict(self) -> Literal["better", "worse", "may be chance"]:
        """What the difference says about the evaluation."""
        if not self.is_clear:
            return "may be chance"
        return "better" if self.is_better else "worse"

    def __str__(self) -> str:
        return METRICS[self.metric].format_difference(self.value)


@dataclass(frozen=True)
class Contrast:
    """An evaluation compared with the baseline.

    Attributes:
        name: name of the evaluation.
        videos: how many videos both answered; the other attributes are about these.
        differences: one for each metric that is a mean over videos.
        won, lost: videos whose top label is right here and wrong in the baseline, and the reverse.
        p: of McNemar's exact test that both are right equally often. Not corrected for several contrasts.
    """

    name: str
    videos: int
    differences: tuple[Difference, ...]
    won: int
    lost: int
    p: float

    @classmethod
    def measure(cls, name: str, evaluation: Evaluation, baseline: Evaluation) -> "Contrast":
        """Compare over the videos that both answered."""
        _, rows, base_rows = np.intersect1d(
            evaluation.positions, baseline.positions, assume_unique=True, return_indices=True
        )
        if not rows.size:
            return cls(name, 0, (), 0, 0, 1.0)
        differences = []
        for metric in METRICS:
            if metric in evaluation.per_video:
                ours, theirs = evaluation.per_video[metric][rows], baseline.per_video[metric][base_rows]
                differences.append(Difference(metric, float(np.mean(ours - theirs)), paired_interval(ours, theirs)))
        right, base_right = evaluation.correct[rows], baseline.correct[base_rows]
        return cls(
            name=name,
            videos=int(rows.size),
            differences=tuple(differences),
            won=int(np.sum(right & ~base_right)),
            lost=int(np.sum(~right & base_right)),
            p=mcnemar_p(right, base_right),
        )

    def __getitem__(self, metric: str) -> Difference:
        return next(difference for difference in self.differences if difference.metric == metric)

    def to_dict(self) -> dict[str, Any]:
        """The contrast for JSON."""
        return {
            "videos": self.videos,
            "differences": {
                difference.metric: {
                    "value": round_number(difference.value),
                    **describe_interval(difference.interval),
                    "verdict": difference.verdict,
                }
                for difference in self.differences
            },
            "only_this_right": self.won,
            "only_baseline_right": self.lost,
            "mcnemar_p": self.p,
        }


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Report):
    """Evaluations of the same videos, by name. The first one is the baseline.

    Raises:
        ValueError: there are fewer than two, or they are not about the same videos.
    """

    _kind: ClassVar = "comparison"

    evaluations: Mapping[str, Evaluation]

    def __post_init__(self) -> None:
        if len(self.evaluations) < 2:
            raise ValueError(f"a comparison needs two evaluations or more, got {len(self.evaluations)}")
        videos = {tuple((video.id, video.labels) for video in one.videos) for one in self.evaluations.values()}
        if len(videos) > 1:
            raise ValueError(
                "evaluations can be compared only if they have the same videos with the same labels in the same order;"
                f" {', '.join(self.evaluations)} do not: evaluate them from one source"
            )

    @property
    def baseline(self) -> str:
        """Name of the evaluation that the others are compared with."""
        return next(iter(self.evaluations))

    @property
    def failed(self) -> bool:
        """Whether any video has no prediction in any evaluation."""
        return any(one.failures for one in self.evaluations.values())

    @property
    def metrics(self) -> dict[str, list[MetricValue | None]]:
        """Deprecated: `metrics` of each evaluation."""
        text = "Comparison.metrics is deprecated; use Evaluation.metrics of each evaluation. Version 0.3 drops it"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return {name: [one.metrics.get(name) for one in self.evaluations.values()] for name in METRICS}

    @cached_property
    def contrasts(self) -> Mapping[str, Contrast]:
        """Each evaluation but the first, compared with the first, by name."""
        (_, baseline), *others = self.evaluations.items()
        return {name: Contrast.measure(name, evaluation, baseline) for name, evaluation in others}

    def __getitem__(self, name: str) -> Evaluation:
        return self.evaluations[name]

    def to_dict(self) -> dict[str, Any]:
        """The contrasts and each evaluation's report as plain dicts, lists, numbers and texts."""
        return {
            "baseline": self.baseline,
            "contrasts": {name: contrast.to_dict() for name, contrast in self.contrasts.items()},
            "evaluations": {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()},
        }

    def draw_plots(self) -> dict[str, dict[str, str]]:
        """The plots of each evaluation, by name; see `Report.draw_plots`."""
        return {
            name: plots for name, evaluation in self.evaluations.items() for plots in evaluation.draw_plots().values()
        }

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.evaluations.values()))})"
