"""Whether scores mean what they say: of the answers scored 0.8, are 80 % right?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15  # Guo et al. 2017 (arXiv 1706.04599) and most papers since; other numbers give other errors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: answers sorted by confidence into bins of equal width.

    Attributes:
        counts: int [B]: answers in each bin.
        confidence: float64 [B]: their mean confidence; NaN where there are none.
        accuracy: float64 [B]: the share of them that is right; NaN where there are none.
    """

    counts: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def edges(self) -> Floats:
        """float64 [B + 1], 0 to 1. A bin holds its upper edge, not its lower one."""
        return np.asarray(np.linspace(0, 1, len(self.counts) + 1))

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| over bins, weighted by their answers."""
        return float(np.sum(self._gaps * self.counts) / self.counts.sum())

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the gap of the worst bin, however few answers it has."""
        return float(self._gaps.max())

    @property
    def _gaps(self) -> Floats:
        return np.asarray(np.nan_to_num(np.abs(self.accuracy - self.confidence)))


def measure_reliability(
    confidence: npt.NDArray[np.floating[Any]], correct: npt.NDArray[np.bool_], *, bins: int = BINS
) -> Reliability:
    """Sort N answers by the score of their top label, 0 to 1, and compare it with how often they are right."""
    if confidence.shape != correct.shape or confidence.ndim != 1 or not confidence.size:
        raise ValueError(
            "confidence and correct have one shape [N] with N from 1 on,"
            f" got {list(confidence.shape)} and {list(correct.shape)}"
        )
    if not (confidence.min() >= 0 and confidence.max() <= 1):
        raise ValueError(f"confidence is 0 to 1, got {confidence.min()} to {confidence.max()}")
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
    """Squared distance from each row of `scores` [N, K] to the truth, float64 [N]: 0 is perfect, 2 is worst.

    Several truths share the probability of 1 evenly; an index outside 0 to K - 1 takes its share nowhere.
    """
    result = np.empty(len(truths))
    for row, true in enumerate(truths):  # row by row: no second matrix of the size of the scores
        distance = scores[row].astype(np.float64)
        for index in true:
            if 0 <= index < scores.shape[1]:
                distance[index] -= 1 / len(true)
        result[row] = distance @ distance
    return result
