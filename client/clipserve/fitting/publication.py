"""A head as a model of a server: published beside the model whose features it takes, loaded, and asked at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest
from clipserve.extras import load
from clipserve.fitting.head import Floats, Head
from clipserve.results import Prediction

# Relative, of features. In bf16, with other videos in the batch, they move by up to 0.02; those of other weights by 1.
FEATURE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Publication:
    """Where a head is served.

    Attributes:
        version: its number, for `clipserve versions`; None: it could not be published, and a note says why.
        repository: of the model.
        loaded: whether a server has loaded it.
        checked_videos: how many of its videos that server was asked about.
        feature_error: max |feature there - feature that the head was fitted to| over them, relative to the largest
            feature; None without any.
        score_error: max |score there - score of the head for the features that it was fitted to|. With several views
            they differ: the head was fitted to mean features, and the server averages the scores of the views.
        notes: sentences for the person who published it.
    """

    version: int | None
    repository: str
    loaded: bool = False
    checked_videos: int = 0
    feature_error: float | None = None
    score_error: float | None = None
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> Self:
        """The same with another sentence."""
        return replace(self, notes=(*self.notes, note))

    def describe(self, name: str) -> str:
        """How far the model `name` has come, where something failed."""
        if self.version is None:
            return f"{name} is not published"
        return f"{name} is served, but was not compared" if self.loaded else f"no server has loaded {name} yet"

    @property
    def agrees(self) -> bool:
        """Whether the server computes the features that the head was fitted to, as far as it was asked."""
        return self.feature_error is None or self.feature_error <= FEATURE_TOLERANCE


@dataclass(frozen=True)
class Place:
    """Where a head is to be published, checked before anything is computed.

    trunk: a Trunk of clipserve_export.own.fitted, which imports this package.
    """

    trunk: Any
    name: str

    @classmethod
    def choose(cls, repository: Path, *, on: str, name: str) -> "Place":
        """The place of `name` in a repository that has `on`.

        Raises:
            InvalidRequest: it does not have it, the name is not allowed, or packages of the export are missing.
        """
        fitted = load("clipserve_export.own.fitted", "export")
        with explain_export_errors():
            return cls(fitted.find_trunk(repository, on, name=name), name)

    def require_classes(self, classes: Sequence[str], *, version: int | None) -> None:
        """Raise InvalidRequest unless these can be the classes of the model, beside its other versions."""
        with explain_export_errors():
            self.trunk.require_classes(self.name, classes, version=version)

    def publish(self, head: Head, **facts: Any) -> int:
        """Write the model and publish it. Returns its version. Raises InvalidRequest; then nothing is published."""
        fitted = load("clipserve_export.own.fitted", "export")
        with explain_export_errors():
            return int(fitted.publish_head(self.trunk, head, self.name, **facts).version)

    def reload(self, url: str, **connection: Any) -> None:
        """Let the server at `url` load the model. Raises InvalidRequest where it does not.

        connection: tls and headers, as of `reload_model`.
        """
        with explain_export_errors():
            load("clipserve_export.versions", "export").reload_model(self.trunk.spec_of(self.name), url, **connection)


@contextmanager
def explain_export_errors() -> Iterator[None]:
    """Turn what an export raises into InvalidRequest."""
    errors = load("clipserve_export.errors", "export")
    try:
        yield
    except errors.ExportError as error:
        raise InvalidRequest(str(error)) from error


def compare_answers(
    predictions: Sequence[Prediction], features: npt.NDArray[np.float32], scores: Floats
) -> tuple[float, float]:
    """`feature_error` and `score_error` of `Publication`.

    Args:
        predictions: of every class, with features, for N videos.
        features: [N, D], that the head was fitted to.
        scores: [N, K], of the head for them.
    """
    served = np.zeros_like(scores)
    for row, prediction in enumerate(predictions):
        for scored in prediction:
            served[row, scored.index] = scored.score
    found = np.stack([np.asarray(prediction.features) for prediction in predictions])
    largest = float(np.abs(features).max()) or 1.0
    return float(np.abs(found - features).max()) / largest, float(np.abs(served - scores).max())
