"""Metrics of ranked labels and of scores, given the true labels. Pure functions; none of them knows about videos.

A ranked list is any sequence, best first. A list of truths holds the true labels of one item in any order.

>>> average_precision([1, 6, 2, 7, 8, 3, 9, 10, 4, 5], [1, 2, 3, 4, 5])
0.6222222222222222
>>> hit_ratio([1, 6, 2, 7, 8, 3, 9, 10, 4, 5], [1, 2, 3, 4, 5])
1.0
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.extras import load

# The usual number since Guo et al. 2017 (arXiv 1706.04599). The expected calibration error depends on it.
CALIBRATION_BINS = 15

Floats = npt.NDArray[np.float64]


def hit_ratio(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """Share of the truths that are in `predicted`. Give only the first k of `predicted` for the ratio at k."""
    wanted = _distinct(truths)
    return len(wanted & set(predicted)) / len(wanted)


def is_hit(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """1.0 if any truth is in `predicted`, else 0.0. Its mean over videos is the top-k accuracy."""
    return float(bool(_distinct(truths) & set(predicted)))


def average_precision(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """Mean over the truths of the precision at the rank of each. A truth that is not in `predicted` counts 0.

    With one truth this is 1 / rank.
    """
    wanted = _distinct(truths)
    found, total = 0, 0.0
    for rank, item in enumerate(predicted, start=1):
        if item in wanted:
            wanted.discard(item)  # a repeated item counts once
            found += 1
            total += found / rank
            if not wanted:
                break
    return total / (found + len(wanted))


def rank_classes(scores: npt.NDArray[np.float32], *, depth: int) -> npt.NDArray[np.intp]:
    """Class indices of the `depth` best scores of each row of [N, K], best first: [N, min(depth, K)]."""
    depth = min(depth, scores.shape[1])
    best = np.empty((len(scores), depth), dtype=np.intp)
    for row, values in enumerate(scores):  # one row at a time: the order of all takes twice the memory of the scores
        best[row] = np.argsort(-values, kind="stable")[:depth]
    return best


def class_average_precision(scores: npt.NDArray[np.floating[Any]], truths: Sequence[Sequence[int]]) -> Floats:
    """Average precision of each column of `scores` [N, K] as a detector of its class. Its mean is the macro mAP.

    Args:
        scores: [N, K].
        truths: N lists of class indices; an index outside 0 to K - 1 belongs to no class.

    Returns:
        float64 [K]; NaN for a class that is no video's truth, because its precision is not defined.
    """
    metrics = load("sklearn.metrics", "evaluation")
    # One column at a time: a matrix of all targets would be as large as the scores.
    result = np.full(scores.shape[1], np.nan)
    for index, members in members_by_class(truths, scores.shape[1]).items():
        target = np.zeros(len(truths), dtype=bool)
        target[members] = True
        result[index] = metrics.average_precision_score(target, scores[:, index])
    return result


@dataclass(frozen=True)
class Recall:
    """For each class, its number of videos and the share of them that is found: [K] each; NaN without videos."""

    videos: npt.NDArray[np.int64]
    share: Floats


def class_recall(
    best: npt.NDArray[np.integer[Any]], truths: Sequence[Sequence[int]], *, classes: int, k: int | None = None
) -> Recall:
    """For each class, the share of its videos that have the class among the first `k` of `best` [N, at least k].

    Without `k`, as many labels count as the video has truths, so that two truths can both be found. For videos with one
    truth this is the accuracy of the class.
    """
    videos = np.zeros(classes, dtype=np.int64)
    share = np.full(classes, np.nan)
    for index, members in members_by_class(truths, classes).items():
        hits = [index in best[member, : k or len(truths[member])] for member in members]
        videos[index], share[index] = len(members), np.mean(hits)
    return Recall(videos, share)


@dataclass(frozen=True)
class Confusion:
    """How often each class is predicted for each true class.

    Attributes:
        classes: int [M], the classes that occur as a truth or as a prediction, ascending.
        counts: int [M, M]: rows are truths, columns predictions, both in the order of `classes`.
    """

    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def pairs(self) -> list[tuple[int, int, int]]:
        """(truth, prediction, count) of each kind of mistake, most frequent first."""
        wrong = self.counts * (1 - np.eye(len(self.classes), dtype=np.int64))
        rows, columns = np.nonzero(wrong)
        order = np.argsort(-wrong[rows, columns], kind="stable")
        return [
            (int(self.classes[row]), int(self.classes[column]), int(wrong[row, column]))
            for row, column in zip(rows[order], columns[order], strict=True)
        ]


def count_confusion(predicted: npt.NDArray[np.integer[Any]], truths: npt.NDArray[np.integer[Any]]) -> Confusion:
    """Compare predictions [N] with truths [N], one class index each."""
    # Only the classes that occur: a matrix of all pairs of 20,000 classes would take 3 GB.
    classes, places = np.unique(np.concatenate([truths, predicted]).astype(np.int64), return_inverse=True)
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (places[: len(truths)], places[len(truths) :]), 1)
    return Confusion(classes, counts)


def members_by_class(truths: Sequence[Sequence[int]], classes: int) -> dict[int, list[int]]:
    """The positions of the videos of each class that has any, by class index."""
    members: dict[int, list[int]] = {}
    for position, true in enumerate(truths):
        for index in true:
            if 0 <= index < classes:
                members.setdefault(index, []).append(position)
    return members


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: predictions in B bins of equal width by confidence, the score of the top label.

    Attributes:
        counts: int [B]: the number of predictions in each bin.
        confidence: float64 [B]: their mean confidence; NaN in an empty bin.
        accuracy: float64 [B]: the share of them that is right; NaN in an empty bin.
    """

    counts: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def edges(self) -> Floats:
        """float64 [B + 1], 0 to 1. A bin includes its upper edge and excludes its lower one."""
        return np.asarray(np.linspace(0, 1, len(self.counts) + 1))

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| over the bins, weighted by their counts."""
        return float(np.sum(self._gaps * self.counts) / self.counts.sum())

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: |accuracy - confidence| of the worst bin, whatever its count."""
        return float(self._gaps.max())

    @property
    def _gaps(self) -> Floats:
        return np.asarray(np.nan_to_num(np.abs(self.accuracy - self.confidence)))


def measure_reliability(
    confidence: npt.NDArray[np.floating[Any]], correct: npt.NDArray[np.bool_], *, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Compare the confidence [N] of predictions, 0 to 1, with whether each is correct [N]."""
    if confidence.shape != correct.shape or confidence.ndim != 1 or not confidence.size:
        raise ValueError(
            "confidence and correct have one shape [N] with N from 1 on,"
            f" got {list(confidence.shape)} and {list(correct.shape)}"
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1):
        raise ValueError(f"confidence must be 0 to 1, got {confidence.min()} to {confidence.max()}")
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            counts=counts,
            confidence=np.bincount(which, weights=confidence, minlength=bins) / counts,
            accuracy=np.bincount(which, weights=correct, minlength=bins) / counts,
        )


def brier_scores(scores: npt.NDArray[np.floating[Any]], truths: Sequence[tuple[int, ...]]) -> Floats:
    """Squared distance between each row of `scores` [N, K] and its truth, float64 [N]: 0 is perfect, 2 is worst.

    Several truths share the probability 1 evenly. The share of an index outside 0 to K - 1 is lost.
    """
    result = np.empty(len(truths))
    for row, true in enumerate(truths):  # one row at a time: no second matrix of the size of the scores
        distance = scores[row].astype(np.float64)
        for index in true:
            if 0 <= index < scores.shape[1]:
                distance[index] -= 1 / len(true)
        result[row] = distance @ distance
    return result


def _distinct(truths: Sequence[Hashable]) -> set[Hashable]:
    if not truths:
        raise ValueError("the list of truths is empty: give at least one true label")
    return set(truths)
