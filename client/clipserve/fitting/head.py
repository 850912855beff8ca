"""A linear head: from the features of a video to the scores of your classes."""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clipserve.extras import load

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_ITERATIONS = 2000


@dataclass(frozen=True, eq=False)
class Head:
    """scores = softmax(features x weights + bias).

    Attributes:
        classes: K labels.
        weights: float32 [K, D].
        bias: float32 [K].
    """

    classes: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.bias.shape != (len(self.classes),) or len(self.weights) != len(self.classes):
            raise ValueError(
                f"{len(self.classes)} classes take weights [K, D] and bias [K], got {list(self.weights.shape)} and"
                f" {list(self.bias.shape)}"
            )

    @property
    def feature_size(self) -> int:
        """D: the length of a feature vector."""
        return self.weights.shape[1]

    def score(self, features: npt.NDArray[np.floating[Any]]) -> Floats:
        """Scores [N, K] of features [N, D]; each row sums to 1."""
        return softmax(features.astype(np.float64) @ self.weights.T.astype(np.float64) + self.bias)


def softmax(logits: Floats) -> Floats:
    """Of each row."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Feature vectors in as few dimensions as hold all of them: shifted, rotated, divided by one number.

    The penalty of the head is the same in every rotation, so that nothing is lost: 100 vectors of 2048 values have at
    most 100 coordinates, and fitting takes a tenth of the time. One number for all dimensions gives the penalty
    the same meaning for every network.

    Attributes:
        mean: [D].
        basis: orthonormal rows [R, D]; None where there are more vectors than values.
        scale: the root of the mean squared distance from `mean`.
    """

    mean: Floats
    basis: Floats | None
    scale: float

    @classmethod
    def of(cls, vectors: npt.NDArray[np.floating[Any]]) -> Self:
        """The coordinates of these vectors [N, D]. They depend on no label."""
        values = vectors.astype(np.float64)
        mean = values.mean(axis=0)
        centred = values - mean
        scale = float(np.sqrt((centred**2).sum(axis=1).mean())) or 1.0
        basis = None
        if len(values) < values.shape[1]:
            basis = np.linalg.svd(centred, full_matrices=False)[2]
        return cls(mean, basis, scale)

    def apply(self, vectors: npt.NDArray[np.floating[Any]]) -> Floats:
        """[N, D] -> [N, R]."""
        centred = (vectors.astype(np.float64) - self.mean) / self.scale
        return centred if self.basis is None else np.asarray(centred @ self.basis.T)

    def make_head(self, classes: tuple[str, ...], weights: Floats, bias: Floats, *, temperature: float) -> Head:
        """The head on features that is this one, [K, R] and [K], on coordinates. The temperature divides both."""
        own = weights / self.scale if self.basis is None else weights @ self.basis / self.scale
        shifted = bias - own @ self.mean
        return Head(classes, (own / temperature).astype(np.float32), (shifted / temperature).astype(np.float32))


def fit_weights(points: Floats, truths: Integers, *, classes: int, strength: float) -> tuple[Floats, Floats]:
    """Multinomial logistic regression with an L2 penalty.

    Args:
        points: [N, R].
        truths: [N], class indices; every class has a point.
        classes: K.
        strength: scikit-learn's C: of the data against the penalty.

    Returns:
        Weights [K, R] and bias [K].
    """
    linear_model = load("sklearn.linear_model", "evaluation")
    with warnings.catch_warnings():
        # Few videos of many classes: scikit-learn takes their indices for measured values.
        warnings.filterwarnings("ignore", "The number of unique classes")
        model = linear_model.LogisticRegression(C=strength, max_iter=MOST_ITERATIONS).fit(points, truths)
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if classes == 2:  # scikit-learn has one row, for the second class
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias
