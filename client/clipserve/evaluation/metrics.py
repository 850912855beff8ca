"""How good ranked labels and scores are, given the truth. Pure functions; nothing here knows of videos.

A ranked list is any sequence, best first; a list of truths holds what is right, in no order.

>>> average_precision([1, 6, 2, 7, 8, 3, 9, 10, 4, 5], [1, 2, 3, 4, 5])
0.6222222222222222
>>> hit_ratio([1, 6, 2, 7, 8, 3, 9, 10, 4, 5], [1, 2, 3, 4, 5])
1.0
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.evaluation.extra import load

Floats = npt.NDArray[np.float64]


def hit_ratio(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """Share of the truths that are among `predicted`. Cut `predicted` to its first k for the ratio at k."""
    wanted = _distinct(truths)
    return len(wanted & set(predicted)) / len(wanted)


def is_hit(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """1.0 if any truth is among `predicted`, else 0.0. Its mean over videos is the top-k accuracy."""
    return float(bool(_distinct(truths) & set(predicted)))


def average_precision(predicted: Sequence[Hashable], truths: Sequence[Hashable]) -> float:
    """Mean, over the truths, of the precision at the rank where each is found; a truth not found gives 0.

    With one truth this is 1 / rank.
    """
    wanted = _distinct(truths)
    found, total = 0, 0.0
    for rank, item in enumerate(predicted, start=1):
        if item in wanted:
            wanted.discard(item)  # a repeated item is right once
            found += 1
            total += found / rank
            if not wanted:
                break
    return total / (found + len(wanted))


def mean_hit_ratio(predictions: Iterable[Sequence[Hashable]], truths: Iterable[Sequence[Hashable]], *, k: int) -> float:
    """Mean of the hit ratio among the first `k`, over lists and their truths."""
    return _mean(hit_ratio(predicted[:k], true) for predicted, true in zip(predictions, truths, strict=True))


def top_k_accuracy(predictions: Iterable[Sequence[Hashable]], truths: Iterable[Sequence[Hashable]], *, k: int) -> float:
    """Share of the lists that have a truth among their first `k`."""
    return _mean(is_hit(predicted[:k], true) for predicted, true in zip(predictions, truths, strict=True))


def mean_average_precision(predictions: Iterable[Sequence[Hashable]], truths: Iterable[Sequence[Hashable]]) -> float:
    """Mean of the average precision over lists and their truths."""
    return _mean(average_precision(predicted, true) for predicted, true in zip(predictions, truths, strict=True))


def class_average_precision(scores: npt.NDArray[np.floating[Any]], truths: Sequence[Sequence[int]]) -> Floats:
    """Average precision of each column of `scores` [N, K] as a detector of its class; its mean is the macro mAP.

    truths: N lists of class indices; an index outside 0 to K - 1 belongs to no class.
    Returns float64 [K]; NaN for a class that is nobody's truth, for it has no precision.
    """
    metrics = load("sklearn.metrics")
    # A column at a time: a matrix of all targets would be as large as the scores.
    result = np.full(scores.shape[1], np.nan)
    for index, members in members_by_class(truths, scores.shape[1]).items():
        target = np.zeros(len(truths), dtype=bool)
        target[members] = True
        result[index] = metrics.average_precision_score(target, scores[:, index])
    return result


@dataclass(frozen=True)
class Recall:
    """How many videos each class has, and which share was found. Arrays [K]; NaN for a class without videos."""

    videos: npt.NDArray[np.int64]
    share: Floats


def class_recall(
    best: npt.NDArray[np.integer[Any]], truths: Sequence[Sequence[int]], *, classes: int, k: int | None = None
) -> Recall:
    """Of the videos of a class, the share that has it among the first `k` of `best` [N, at least k].

    Without `k`, as many labels count as the video has truths, so that two truths can both be found:
    with one truth each this is the accuracy of the class.
    """
    videos = np.zeros(classes, dtype=np.int64)
    share = np.full(classes, np.nan)
    for index, members in members_by_class(truths, classes).items():
        hits = [index in best[member, : k or len(truths[member])] for member in members]
        videos[index], share[index] = len(members), np.mean(hits)
    return Recall(videos, share)


@dataclass(frozen=True)
class Confusion:
    """What was taken for what.

    Attributes:
        classes: int [M], the classes that occur, as a truth or as an answer, ascending.
        counts: int [M, M]: rows are truths, columns answers, both in the order of `classes`.
    """

    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def pairs(self) -> list[tuple[int, int, int]]:
        """(truth, answer, count) of each mistake made, most frequent first."""
        wrong = self.counts * (1 - np.eye(len(self.classes), dtype=np.int64))
        rows, columns = np.nonzero(wrong)
        order = np.argsort(-wrong[rows, columns], kind="stable")
        return [
            (int(self.classes[row]), int(self.classes[column]), int(wrong[row, column]))
            for row, column in zip(rows[order], columns[order], strict=True)
        ]


def confuse(answers: npt.NDArray[np.integer[Any]], truths: npt.NDArray[np.integer[Any]]) -> Confusion:
    """Count the answers [N] against the truths [N], one class index each."""
    # Only what occurs: a matrix of all pairs of 20,000 classes would take 3 GB.
    classes, places = np.unique(np.concatenate([truths, answers]).astype(np.int64), return_inverse=True)
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


def _distinct(truths: Sequence[Hashable]) -> set[Hashable]:
    if not truths:
        raise ValueError("there is nothing to find: the list of truths is empty")
    return set(truths)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    if not listed:
        raise ValueError("there is no mean of no lists: give at least one prediction with its truths")
    return float(np.mean(listed))
