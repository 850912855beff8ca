"""Mean average precision of segments against true ones, as ActivityNet measures it.

The rules are those of `Evaluation/eval_detection.py` in github.com/activitynet/ActivityNet. For one class and one
threshold of temporal IoU, the detections of all videos are sorted by falling score. Each detection looks among the true
segments of its video that no earlier one has taken, for the one that it overlaps most. If their IoU is at least the
threshold, it takes that segment and is right; otherwise it is wrong. The average precision is the area under precision
over recall, where precision is made not to rise with recall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipserve.evaluation.ground_truth import normalise
from clipserve.timeline.segments import Segment
from clipserve.timeline.truth import TrueSegment

# THUMOS' thresholds, which papers report most; ActivityNet's own are 0.5 to 0.95.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class ClassDetection:
    """The result for one class.

    Attributes:
        label: as the ground truth spells it.
        true: how many true segments there are.
        found: how many segments the model gives.
        average_precision: by threshold.
    """

    label: str
    true: int
    found: int
    average_precision: Mapping[float, float]

    @property
    def mean(self) -> float:
        """The mean over the thresholds."""
        return sum(self.average_precision.values()) / len(self.average_precision)


def measure_iou(one: Segment | TrueSegment, other: Segment | TrueSegment) -> float:
    """Temporal IoU: length of the intersection of two segments over that of their union, 0 to 1."""
    shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    if shared <= 0:
        return 0.0
    return shared / (one.length_seconds + other.length_seconds - shared)


def measure_classes(
    true: Mapping[str, Sequence[TrueSegment]],
    found: Mapping[str, Sequence[Segment]],
    labels: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[ClassDetection]:
    """The result for each of `labels`, in their order. Segments are given by video; labels match as in `evaluate`."""
    results = []
    for label in labels:
        name = normalise(label)
        truth = {video: [one for one in many if normalise(one.label) == name] for video, many in true.items()}
        detections = [(video, one) for video, many in found.items() for one in many if normalise(one.label) == name]
        precision = {threshold: average_precision(truth, detections, threshold) for threshold in thresholds}
        results.append(ClassDetection(label, sum(map(len, truth.values())), len(detections), precision))
    return results


def average_precision(
    true: Mapping[str, Sequence[TrueSegment]], found: Sequence[tuple[str, Segment]], threshold: float
) -> float:
    """The average precision of one class at one threshold, 0 to 1; NaN if there is no true segment.

    Args:
        true: the true segments of the class by video.
        found: (video, segment) of each detection. Those of equal score keep their order.
    """
    total = sum(map(len, true.values()))
    if not total:
        return float("nan")
    ordered = sorted(found, key=lambda detection: -detection[1].score)
    taken: set[tuple[str, int]] = set()
    right = np.zeros(len(ordered), bool)
    for place, (video, one) in enumerate(ordered):
        overlaps = [(measure_iou(one, other), number) for number, other in enumerate(true.get(video, ()))]
        free = [item for item in overlaps if item[0] >= threshold and (video, item[1]) not in taken]
        if free:
            _, number = max(free, key=lambda item: item[0])
            taken.add((video, number))
            right[place] = True
    hits = np.cumsum(right)
    return measure_area(hits / np.arange(1, len(right) + 1), hits / total)


def measure_area(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> float:
    """The area under precision over recall, [N] each, by falling score. Precision is the largest from there on."""
    if not len(precision):
        return 0.0
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * highest))
