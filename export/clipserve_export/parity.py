"""Does the exported file compute what the network computes? Asked before anything is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipserve_export.clips import random_clips
from clipserve_export.errors import ParityError, WeightsError
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import Geometry

if TYPE_CHECKING:
    # Measuring a network needs no file format, and none of their libraries.
    from clipserve_export.formats import Run

# (batch, views) of the clips compared. None is the (2, 2) the exporters traced with: a baked size shows here.
CHECKED_SHAPES = ((1, 1), (3, 1), (1, 2))
SCORE_TOLERANCE = 1e-4  # absolute, on probabilities
# Relative to the largest feature. Seen with random and trained weights: 1e-6 at most; x3d_l 1e-5.
FEATURE_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an exported network may be from the network itself."""

    scores: float  # absolute, on probabilities
    features: float  # relative to the largest feature


FLOAT32 = Tolerance(scores=SCORE_TOLERANCE, features=FEATURE_TOLERANCE)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported network is from the network itself, in float32."""

    clips: int  # compared
    top1_agreements: int  # clips with the same best class
    score_error: float  # max |difference| of SCORES
    feature_error: float  # max |difference| of FEATURES over their largest magnitude
    tolerance: Tolerance = FLOAT32

    @property
    def holds(self) -> bool:
        """Whether both errors are within tolerance; a NaN is not."""
        return self.score_error <= self.tolerance.scores and self.feature_error <= self.tolerance.features

    def require(self) -> None:
        """Raise ParityError unless it holds."""
        if not self.holds:
            raise ParityError(f"the export does not compute what the network does, nothing was written: {self}")

    def __str__(self) -> str:
        return (
            f"max error {self.score_error:.1e} in scores (allowed {self.tolerance.scores:.0e}),"
            f" {self.feature_error:.1e} in features (relative, allowed {self.tolerance.features:.0e}),"
            f" top-1 equal in {self.top1_agreements} of {self.clips} clips"
        )


def compare(
    network: ActionNetwork,
    exported: Run,
    geometry: Geometry,
    *,
    tolerance: Tolerance = FLOAT32,
    shapes: Sequence[tuple[int, int]] = CHECKED_SHAPES,
    seed: int | None = None,
) -> Parity:
    """Run both on fresh random clips of every (batch, views) in `shapes`. Takes new clips each time unless seeded.

    Raises:
        WeightsError: the answers of `network` are no numbers.
        ParityError: those of `exported` have another shape.
    """
    fresh = torch.seed() % 2**32 if seed is None else seed
    clips = agreements = 0
    score_error = feature_error = 0.0
    for offset, (batch, views) in enumerate(shapes):
        clip = random_clips(geometry, batch=batch, views=views, seed=fresh + offset)
        with torch.no_grad():
            scores, features = network(clip)
        if not bool(scores.isfinite().all() and features.isfinite().all()):
            raise WeightsError(
                "the network itself gives NaN or infinite values, before anything is exported: look at its weights,"
                " such as batch norms with a negative running_var"
            )
        got_scores, got_features = map(torch.from_numpy, exported(clip.numpy()))
        if (got_scores.shape, got_features.shape) != (scores.shape, features.shape):
            raise ParityError(
                f"for a batch of {batch} with {views} views the export gives {tuple(got_scores.shape)} and"
                f" {tuple(got_features.shape)}, the network {tuple(scores.shape)} and {tuple(features.shape)}"
            )
        clips += batch
        agreements += int((scores.argmax(1) == got_scores.argmax(1)).sum())
        score_error = _larger(score_error, (scores - got_scores).abs().max())
        feature_error = _larger(feature_error, (features - got_features).abs().max() / features.abs().max())
    return Parity(
        clips=clips,
        top1_agreements=agreements,
        score_error=score_error,
        feature_error=feature_error,
        tolerance=tolerance,
    )


def _larger(worst: float, error: torch.Tensor) -> float:
    # max() would drop a NaN that comes second.
    value = float(error)
    return value if value != value or value > worst else worst
