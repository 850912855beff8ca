"""What a classification returns: labels with scores, the prediction for one video, the row of one video among many."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.errors import ClipserveError

LABELS_IN_REPR = 3


@dataclass(frozen=True)
class ScoredLabel:
    """One label and its score.

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
            raise ValueError(f"index must be a position from 0 on, got {self.index}")
        if not math.isfinite(self.score):
            raise ValueError(f"score must be a number, got {self.score} for label {self.label!r}")

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The best labels for one video, best first. Iterates over them.

    Attributes:
        labels: top_k labels, or all of them if the model has fewer.
        model: name of the model that answered.
        video: the video's name: the path as given, a file object's name, or "<bytes>".
        features: float32 array [D] (X3D: 2048, MViT: 768), the embedding before the projection, if requested.
        report: the server's report (codec, size, timestamps of the frames, milliseconds), if requested.
        truncated: whether bytes of the video are missing or damaged, so that the labels come from the frames that are
            left; None if the server does not say.
    """

    labels: tuple[ScoredLabel, ...]
    model: str
    video: str
    # compare=False: arrays do not compare to one truth value, and neither arrays nor dicts hash.
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    report: Mapping[str, Any] | None = field(default=None, compare=False)
    truncated: bool | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels, "a prediction")
        if self.features is not None and self.features.ndim != 1:
            raise ValueError(f"features must have the shape [D], got {list(self.features.shape)}")

    @property
    def top(self) -> ScoredLabel:
        """The best label."""
        return self.labels[0]

    def __iter__(self) -> Iterator[ScoredLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        remark = "; truncated" if self.truncated else ""
        return f"Prediction({self.video!r}: {list_best(self.labels)}{remark})"


def check_labels(labels: Sequence[ScoredLabel], owner: str) -> None:
    """Raise ValueError where there are none, or the best is not first."""
    if not labels:
        raise ValueError(f"{owner} has at least one label, got none")
    scores = [scored.score for scored in labels]
    if scores != sorted(scores, reverse=True):
        raise ValueError(f"labels must be best first, got the scores {scores}")


def list_best(labels: Sequence[ScoredLabel]) -> str:
    """The first labels, as a repr shows them."""
    best = [str(scored) for scored in labels[:LABELS_IN_REPR]]
    return ", ".join(best + ["..."] * (len(labels) > LABELS_IN_REPR))


@dataclass(frozen=True)
class Row:
    """One video of a source and its outcome: either a `prediction` or an `error`.

    id, video and label are valid UTF-8: names.py says how other bytes are escaped, and `read_name` returns the name for
    `open`.

    Attributes:
        id: the column `id` of its source, or the path, address or position of the video.
        video: path or address (without credentials) of the video, or "<bytes>".
        prediction: the server's answer; None for a failure.
        error: the reason why there is no prediction; None for a success.
        label: the true label that the source states, or None.
        milliseconds: time from sending the request to the answer, retries included.
    """

    id: str
    video: str
    prediction: Prediction | None = None
    error: ClipserveError | None = None
    label: str | None = None
    milliseconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.prediction is None) == (self.error is None):
            raise ValueError("a row has either a prediction or an error, and this one has both or none")
