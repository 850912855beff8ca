"""The figures of an evaluation: which there are, what they mean, and what they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipserve.evaluation import metrics
from clipserve.evaluation.calibration import brier_scores
from clipserve.evaluation.intervals import Interval, mean_interval

KS = (1, 3, 5)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Meaning:
    """How to read one figure.

    Attributes:
        title: for people.
        text: one sentence that defines it.
        is_share: 0 to 1, shown as a percentage.
        more_is_better: False for errors.
    """

    title: str
    text: str
    is_share: bool = True
    more_is_better: bool = True


_KS_MEANINGS = {
    **{f"top_{k}_accuracy": Meaning(f"top-{k} accuracy", f"videos with a true label among the best {k}") for k in KS},
    **{
        f"mean_hit_ratio_{k}": Meaning(f"mean hit ratio at {k}", f"share of a video's true labels among the best {k}")
        for k in KS
    },
}

# In the order of every report.
MEANINGS: Mapping[str, Meaning] = {
    **_KS_MEANINGS,
    "mean_class_accuracy": Meaning("mean class accuracy", "accuracy of each class, averaged: rare classes count fully"),
    "mean_average_precision": Meaning(
        "mean average precision", "of each class as a detector that sorts all videos by its score, averaged"
    ),
    "mean_ranking_precision": Meaning(
        "mean ranking precision", "average precision of each video's ranked labels, averaged; 1 / rank with one truth"
    ),
    "expected_calibration_error": Meaning(
        "expected calibration error", "how far scores are from how often they are right; 15 bins", more_is_better=False
    ),
    "brier_score": Meaning(
        "Brier score", "squared distance of all scores from the truth, 0 to 2", is_share=False, more_is_better=False
    ),
}


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: a key of MEANINGS.
        value: what it came to.
        interval: 95 %; None for what is no mean over videos, or one video alone.
    """

    name: str
    value: float
    interval: Interval | None = None

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.name]

    def __str__(self) -> str:
        return self.format(self.value)

    def format(self, value: float) -> str:
        """`value` as this figure is written."""
        return f"{100 * value:.1f} %" if self.meaning.is_share else f"{value:.3f}"

    def format_interval(self) -> str:
        if self.interval is None:
            return ""
        scale, digits = (100, 1) if self.meaning.is_share else (1, 3)
        return f"{scale * self.interval.low:.{digits}f} to {scale * self.interval.high:.{digits}f}"


def rank(scores: npt.NDArray[np.float32], *, depth: int) -> npt.NDArray[np.intp]:
    """Class indices of the `depth` best scores of each row of [N, K], best first: [N, min(depth, K)]."""
    depth = min(depth, scores.shape[1])
    best = np.empty((len(scores), depth), dtype=np.intp)
    for row, values in enumerate(scores):  # row by row: the order of all would take twice the memory of the scores
        best[row] = np.argsort(-values, kind="stable")[:depth]
    return best


def measure_videos(scores: npt.NDArray[np.float32], truths: Sequence[tuple[int, ...]]) -> dict[str, Floats]:
    """Each figure that is a mean over videos, before the mean: float64 [N] by name.

    Args:
        scores: [N, K].
        truths: class indices of each video, at least one; one outside 0 to K - 1 is never found.
    """
    names = [*_KS_MEANINGS, "mean_ranking_precision"]
    values = {name: np.empty(len(truths)) for name in names}
    for row, true in enumerate(truths):
        order = np.argsort(-scores[row], kind="stable").tolist()
        for k in KS:
            values[f"top_{k}_accuracy"][row] = metrics.is_hit(order[:k], true)
            values[f"mean_hit_ratio_{k}"][row] = metrics.hit_ratio(order[:k], true)
        values["mean_ranking_precision"][row] = metrics.average_precision(order, true)
    values["brier_score"] = brier_scores(scores, truths)
    return values


def summarise(per_video: Mapping[str, Floats], others: Mapping[str, float]) -> dict[str, Figure]:
    """Figures by name in the order of MEANINGS: means of `per_video` with their intervals, and `others` as they are.

    What is NaN is left out: where no label is known to the model, no class has an accuracy.
    """
    figures = {}
    for name in MEANINGS:
        if name in per_video:
            figures[name] = Figure(name, float(per_video[name].mean()), mean_interval(per_video[name]))
        elif not np.isnan(others[name]):
            figures[name] = Figure(name, others[name])
    return figures
