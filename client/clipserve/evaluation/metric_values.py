"""The metrics that a report shows: how to read each, its value, and its 95 % confidence interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.evaluation import metrics
from clipserve.evaluation.metrics import CALIBRATION_BINS, Floats
from clipserve.extras import load

KS = (1, 3, 5)
JSON_DIGITS = 6  # as many as the server writes for scores

LEVEL = 0.95  # of every interval
RESAMPLES = 2000  # with another seed the ends of an interval then move by about 2 % of its width
BATCH_VALUES = 2_000_000  # values resampled at a time: 32 MB with their indices
SEED = 20170604


@dataclass(frozen=True)
class Metric:
    """How to read one metric.

    Attributes:
        title: its name for people.
        meaning: one sentence that defines it.
        is_share: values are 0 to 1 and shown as a percentage.
        more_is_better: False for errors.
    """

    title: str
    meaning: str
    is_share: bool = True
    more_is_better: bool = True

    def format(self, value: float) -> str:
        """`0.7591` as `75.9 %`, or as `0.759` if the metric is no share."""
        return f"{100 * value:.1f} %" if self.is_share else f"{value:.3f}"

    def format_difference(self, value: float) -> str:
        """`0.0123` as `+1.2` percentage points, or as `+0.012` if the metric is no share."""
        return f"{100 * value:+.1f}" if self.is_share else f"{value:+.3f}"

    def format_interval(self, low: float | None, high: float | None, *, sign: str = "") -> str:
        """`70.1 to 81.0`; "" without an interval. `sign`: "+" for an interval of a difference."""
        if low is None or high is None:
            return ""
        scale, digits = (100, 1) if self.is_share else (1, 3)
        return f"{scale * low:{sign}.{digits}f} to {scale * high:{sign}.{digits}f}"


_PLACES = {k: "in first place" if k == 1 else f"in the first {k} places" for k in KS}
_AT_K = {
    **{
        f"top_{k}_accuracy": Metric(f"top-{k} accuracy", f"share of the videos with a true label {_PLACES[k]}")
        for k in KS
    },
    **{
        f"mean_hit_ratio_{k}": Metric(
            f"mean hit ratio at {k}", f"share of a video's true labels that are {_PLACES[k]}, averaged over videos"
        )
        for k in KS
    },
}

# By name, in the order of every report.
METRICS: Mapping[str, Metric] = {
    **_AT_K,
    "mean_class_accuracy": Metric(
        "mean class accuracy",
        "top-1 accuracy of each class, averaged over classes, so that rare classes count as much as frequent ones",
    ),
    "mean_average_precision": Metric(
        "mean average precision",
        "for each class: sort all videos by the score of this class, take the average precision; averaged over classes",
    ),
    "mean_ranking_precision": Metric(
        "mean ranking precision",
        "average precision of each video's ranked labels, averaged over videos; 1 / rank if a video has one true label",
    ),
    "expected_calibration_error": Metric(
        "expected calibration error",
        "how far the score of the top label is from the share of right answers with that score, on average;"
        f" {CALIBRATION_BINS} bins",
        more_is_better=False,
    ),
    "brier_score": Metric(
        "Brier score",
        "squared distance between all scores of a video and its true labels: 0 is perfect, 2 is worst",
        is_share=False,
        more_is_better=False,
    ),
}


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class MetricValue:
    """The value of one metric.

    Attributes:
        name: a key of METRICS.
        value: the measured value.
        interval: 95 %; None if the metric is no mean over videos, or for a single value that is no share.
    """

    name: str
    value: float
    interval: Interval | None = None

    def __str__(self) -> str:
        return METRICS[self.name].format(self.value)

    def describe(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": round_number(self.value), **describe_interval(self.interval)}


def round_number(value: float | np.floating[Any]) -> float | None:
    """The number for JSON: six digits, and None for NaN."""
    return None if math.isnan(value) else round(float(value), JSON_DIGITS)


def describe_interval(interval: Interval | None) -> dict[str, float | None]:
    """For JSON."""
    if interval is None:
        return {"low": None, "high": None}
    return {"low": round_number(interval.low), "high": round_number(interval.high)}


def measure_videos(scores: npt.NDArray[np.float32], truths: Sequence[tuple[int, ...]]) -> dict[str, Floats]:
    """The metrics that are means over videos, before the mean: float64 [N] by name.

    Args:
        scores: [N, K].
        truths: class indices of each video, at least one; an index outside 0 to K - 1 is never found.
    """
    names = [*_AT_K, "mean_ranking_precision"]
    values = {name: np.empty(len(truths)) for name in names}
    for row, true in enumerate(truths):
        order = np.argsort(-scores[row], kind="stable").tolist()
        for k in KS:
            values[f"top_{k}_accuracy"][row] = metrics.is_hit(order[:k], true)
            values[f"mean_hit_ratio_{k}"][row] = metrics.hit_ratio(order[:k], true)
        values["mean_ranking_precision"][row] = metrics.average_precision(order, true)
    values["brier_score"] = metrics.brier_scores(scores, truths)
    return values


def summarise(per_video: Mapping[str, Floats], others: Mapping[str, float]) -> dict[str, MetricValue]:
    """Metric values in the order of METRICS: the means of `per_video` with intervals, and `others` as they are.

    NaN is left out: if the model knows no true label, no class has an accuracy.
    """
    values = {}
    for name in METRICS:
        if name in per_video:
            values[name] = MetricValue(name, float(per_video[name].mean()), mean_interval(per_video[name]))
        elif not np.isnan(others[name]):
            values[name] = MetricValue(name, others[name])
    return values


def mean_interval(values: Floats) -> Interval | None:
    """Interval of the mean of `values` [N]; None for a single value that is no share.

    Misses and hits (zeros and ones) take Wilson's interval, because a bootstrap of hits alone gives an interval of zero
    width. Anything else takes the percentile bootstrap, seeded.
    """
    if np.isin(values, (0.0, 1.0)).all():
        test = load("scipy.stats", "evaluation").binomtest(int(values.sum()), len(values))
        found = test.proportion_ci(LEVEL, method="wilson")
        return Interval(float(found.low), float(found.high))
    return _bootstrap(values, SEED)


def paired_interval(values: Floats, baseline: Floats, *, seed: int = SEED) -> Interval | None:
    """Interval of mean(values - baseline) over the same videos [N]. None for a single pair that is no share.

    Misses and hits (zeros and ones) take the interval of Agresti and Min (2005), for the reason that `mean_interval`
    has. Anything else takes the paired percentile bootstrap, seeded: each resample draws videos, with both results of
    each, so that what makes a video hard for both cancels out.
    """
    _check_pairs(values, baseline)
    differences = values - baseline
    if not np.isin([values, baseline], (0.0, 1.0)).all():
        return _bootstrap(differences, seed)
    count = len(differences) + 2  # half a video more for each of: won, lost, both right, both wrong
    mean = differences.sum() / count
    variance = ((differences**2).sum() + 1) / count - mean**2
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(variance / count)
    return Interval(max(float(mean - reach), -1.0), min(float(mean + reach), 1.0))


def mcnemar_p(correct: npt.NDArray[np.bool_], baseline: npt.NDArray[np.bool_]) -> float:
    """Exact p of McNemar's test that both are right equally often, from the videos where only one is right."""
    _check_pairs(correct, baseline)
    won, lost = int(np.sum(correct & ~baseline)), int(np.sum(~correct & baseline))
    if won + lost == 0:
        return 1.0
    return float(load("scipy.stats", "evaluation").binomtest(won, won + lost, 0.5).pvalue)


def _check_pairs(values: Floats | npt.NDArray[np.bool_], baseline: Floats | npt.NDArray[np.bool_]) -> None:
    if values.shape != baseline.shape:
        raise ValueError(f"pairs come from the same videos, got {len(values)} and {len(baseline)} of them")


def _bootstrap(values: Floats, seed: int) -> Interval | None:
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # every resample is the same
        return Interval(float(values[0]), float(values[0]))
    found = load("scipy.stats", "evaluation").bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_VALUES // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))
