"""The temperature of a head: scores that say how likely a label is right (Guo et al. 2017, arXiv 1706.04599)."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from clipserve.evaluation.metric_values import round_number
from clipserve.evaluation.metrics import brier_scores, measure_reliability
from clipserve.extras import load
from clipserve.fitting.head import Floats, Integers, softmax

# exp(-5) to exp(5): from certain to all classes alike.
BOUNDS = (-5.0, 5.0)


def find_temperature(logits: Floats, truths: Integers) -> float:
    """The number that held-out logits [N, K] are divided by, so that the scores fit the true classes [N] best.

    By the log loss. Without a mistake among N videos the best temperature is 0, and all scores are 1. Then, by the rule
    of succession, one mistake among N + 2 videos is assumed, spread over all classes.
    """
    optimize = load("scipy.optimize", "evaluation")
    faultless = bool((logits.argmax(axis=1) == truths).all())
    assumed = 1 / (len(truths) + 2) if faultless else 0.0

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        normalised = scaled - scaled.max(axis=1, keepdims=True)
        log_scores = normalised - np.log(np.exp(normalised).sum(axis=1, keepdims=True))
        found = log_scores[np.arange(len(truths)), truths]
        return float(-((1 - assumed) * found + assumed * log_scores.mean(axis=1)).mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=BOUNDS, method="bounded").x))


@dataclass(frozen=True)
class Calibration:
    """How far scores are from the share of right answers.

    Attributes:
        expected_error: expected calibration error.
        log_loss: mean of -log(score of the true class).
        brier_score: 0 to 2.
        mean_score: of the top label.
    """

    expected_error: float
    log_loss: float
    brier_score: float
    mean_score: float

    @classmethod
    def measure(cls, scores: Floats, truths: Integers) -> Self:
        """Of scores [N, K] and true classes [N]."""
        confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == truths
        found = scores[np.arange(len(truths)), truths]
        return cls(
            expected_error=measure_reliability(np.clip(confidence, 0, 1), correct).expected_error,
            log_loss=float(-np.log(np.maximum(found, np.finfo(float).tiny)).mean()),
            brier_score=float(brier_scores(scores, [(int(truth),) for truth in truths]).mean()),
            mean_score=float(confidence.mean()),
        )

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round_number(value) for name, value in asdict(self).items()}


def scale_held_out(logits: Floats, truths: Integers, folds: Integers) -> Floats:
    """Scores [N, K] of held-out logits, each with the temperature of the other folds' videos: none judges itself."""
    scores = np.empty_like(logits)
    for fold in np.unique(folds):
        here = folds == fold
        scores[here] = softmax(logits[here] / find_temperature(logits[~here], truths[~here]))
    return scores
