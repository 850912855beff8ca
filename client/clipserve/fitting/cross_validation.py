"""What a head says about videos that it has not seen: folds, the strength of the penalty, the learning curve."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipserve.evaluation.metric_values import Interval, describe_interval, mean_interval, round_number
from clipserve.extras import load
from clipserve.fitting.head import Floats, Integers, fit_weights, softmax

FOLDS, INNER_FOLDS = 5, 3
# Fewer cannot be split into videos to fit with, videos to choose the penalty with, and videos to measure with.
LEAST_VIDEOS = 3
# scikit-learn's C for points whose mean squared distance from their mean is 1.
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)
MOST_TUNING_VIDEOS = 2000  # to choose the penalty with; more change the choice by less than a step of STRENGTHS
SEED = 0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy with fewer videos.

    Attributes:
        videos_per_class: to fit with, on average.
        accuracy: top-1, of held-out videos.
        interval: 95 %.
    """

    videos_per_class: float
    accuracy: float
    interval: Interval | None

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "videos_per_class": round(self.videos_per_class, 1),
            "accuracy": round_number(self.accuracy),
            **describe_interval(self.interval),
        }


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What cross-validation says about each video.

    Attributes:
        logits: [N, K], each of a head that was fitted without the video.
        folds: [N], the fold of each video.
        curve: the learning curve, ascending; the last point is with all videos of the other folds.
    """

    logits: Floats
    folds: Integers
    curve: tuple[CurvePoint, ...]


def split(truths: Integers, *, folds: int) -> Iterator[tuple[Integers, Integers]]:
    """(to fit with, held out): positions, with the classes in equal shares. The same for the same truths."""
    selection = load("sklearn.model_selection", "evaluation")
    folds = min(folds, int(np.bincount(truths).min()))
    yield from selection.StratifiedKFold(folds, shuffle=True, random_state=SEED).split(truths, truths)


def choose_strength(points: Floats, truths: Integers, *, classes: int) -> float:
    """The strength of STRENGTHS with the least log loss on held-out videos; of equal ones the weakest."""
    if len(truths) > MOST_TUNING_VIDEOS:
        chosen = draw(truths, max(LEAST_VIDEOS, MOST_TUNING_VIDEOS // classes))
        points, truths = points[chosen], truths[chosen]
    losses = np.zeros(len(STRENGTHS))
    for fitting, held_out in split(truths, folds=INNER_FOLDS):
        for place, strength in enumerate(STRENGTHS):
            weights, bias = fit_weights(points[fitting], truths[fitting], classes=classes, strength=strength)
            scores = softmax(points[held_out] @ weights.T + bias)
            found = scores[np.arange(len(held_out)), truths[held_out]]
            losses[place] -= np.log(np.maximum(found, np.finfo(float).tiny)).sum()
    return STRENGTHS[int(losses.argmin())]


def cross_validate(points: Floats, truths: Integers, *, classes: int, progress: Progress) -> HeldOut:
    """Fit on all folds but one, and look at that one. The penalty is chosen anew within the others.

    Args:
        points: [N, R].
        truths: [N], class indices; each class has at least LEAST_VIDEOS.
        classes: K.
        progress: called with what is being done.
    """
    logits, folds = np.empty((len(points), classes)), np.empty(len(points), dtype=np.int64)
    sizes = list_sizes(truths)
    hits: dict[int, list[float]] = {size: [] for size in sizes}
    used: dict[int, list[int]] = {size: [] for size in sizes}
    splits = list(split(truths, folds=FOLDS))
    for number, (fitting, held_out) in enumerate(splits):
        progress(f"cross-validation {number + 1} of {len(splits)}")
        own_points, own_truths = points[fitting], truths[fitting]
        strength = choose_strength(own_points, own_truths, classes=classes)
        for size in sizes:
            chosen = draw(own_truths, size)
            weights, bias = fit_weights(own_points[chosen], own_truths[chosen], classes=classes, strength=strength)
            answers = points[held_out] @ weights.T + bias
            hits[size] += (answers.argmax(axis=1) == truths[held_out]).astype(float).tolist()
            used[size].append(len(chosen))
        # The last size is all of them.
        logits[held_out], folds[held_out] = answers, number
    curve = tuple(
        CurvePoint(float(np.mean(used[size])) / classes, float(np.mean(right)), mean_interval(np.array(right)))
        for size, right in hits.items()
    )
    return HeldOut(logits, folds, curve)


def list_sizes(truths: Integers) -> list[int]:
    """Videos a class on the learning curve: 1, 2, 4, ... while all are twice as many, and then all."""
    counts = np.bincount(truths)
    folds = min(FOLDS, counts.min())
    most = min(counts.min(), counts.mean() / 2) * (folds - 1) / folds
    sizes, size = [], 1
    while size <= most:
        sizes.append(size)
        size *= 2
    return [*sizes, int(counts.max())]


def draw(truths: Integers, size: int) -> Integers:
    """Positions of `size` videos of each class, or of all that it has. Seeded; a larger size includes a smaller one."""
    order = np.random.default_rng(SEED).permutation(len(truths))
    return np.concatenate([order[truths[order] == index][:size] for index in np.unique(truths)])
