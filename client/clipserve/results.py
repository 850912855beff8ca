"""What a classification gives back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

LABELS_IN_REPR = 3


@dataclass(frozen=True)
class ScoredLabel:
    """One label and how sure the model is of it.

    Attributes:
        label: name of the action; the index as text if the model has no label file.
        index: position in the model's list of classes, from 0.
        score: probability, 0 to 1, to the six digits that the server writes.
    """

    label: str
    index: int
    score: float

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"index is a position from 0 on, got {self.index}")
        if not math.isfinite(self.score):
            raise ValueError(f"score is a number, got {self.score} for label {self.label!r}")

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The best labels for one video, best first. Iterates over them.

    Attributes:
        labels: top_k labels, or all of them if the model has fewer.
        model: name of the model that answered.
        video: the video's name: the path as given, a file object's name, or "<bytes>".
        features: float32 array [D] (X3D: 2048, MViT: 768), the embedding ahead of the projection,
            if it was asked for.
        report: what the server did with the video (codec, size, timestamps of the frames it used,
            milliseconds), if it was asked for.
        truncated: whether bytes of the video are missing or damaged, so that the labels come from the
            frames that are left; None if the server does not say.
    """

    labels: tuple[ScoredLabel, ...]
    model: str
    video: str
    # Arrays and dicts neither compare to one truth value nor hash.
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    report: Mapping[str, Any] | None = field(default=None, compare=False)
    truncated: bool | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("a prediction has at least one label, got none")
        scores = [scored.score for scored in self.labels]
        if scores != sorted(scores, reverse=True):
            raise ValueError(f"labels come best first, got the scores {scores}")
        if self.features is not None and self.features.ndim != 1:
            raise ValueError(f"features have the shape [D], got {list(self.features.shape)}")

    @property
    def top(self) -> ScoredLabel:
        """The best label."""
        return self.labels[0]

    def __iter__(self) -> Iterator[ScoredLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        best = [str(scored) for scored in self.labels[:LABELS_IN_REPR]]
        if len(self.labels) > LABELS_IN_REPR:
            best.append("...")
        remark = "; truncated" if self.truncated else ""
        return f"Prediction({self.video!r}: {', '.join(best)}{remark})"
