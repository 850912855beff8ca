"""What evaluating one model came to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipserve.atomic_files import open_atomically
from clipserve.evaluation import metrics
from clipserve.evaluation.calibration import Reliability, measure_reliability
from clipserve.evaluation.extra import load
from clipserve.evaluation.figures import KS, Figure, Floats, measure_videos, rank, summarise
from clipserve.tables.lines import write_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True)
class LabelledVideo:
    """One video of the source: its id, its path or address, and its true labels as they are written there."""

    id: str
    video: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A video without an answer: `code` and `message` of the error, and its position in the source."""

    position: int
    id: str
    video: str
    code: str
    message: str


@dataclass(frozen=True)
class ClassResult:
    """How one class fared: its videos, the shares of them found, and its average precision as a detector."""

    label: str
    videos: int
    accuracy: float
    top_5: float
    average_precision: float


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """A model's answers about labelled videos, and every figure that follows from them.

    All figures are about the N videos that were answered; `failures` lists the others.

    Attributes:
        name: what to call it beside others; the model's name if none was given.
        model: name of the model.
        settings: how it was asked, without credentials.
        versions: of what computed this.
        classes: the K labels of the model; () if nothing was answered.
        videos: every video of the source, in its order.
        positions: int [N], where in `videos` the answered ones are.
        scores: float32 [N, K].
        truths: N tuples of class indices; a label that the model does not know has a negative one.
        failures: the videos without an answer.
        unknown_labels: true labels that are none of `classes`: their videos count as misses.
        milliseconds: float64 [N], from sending to the answer.
        truncated: bool [N], whether the server says that bytes of the video are missing or damaged.
        seconds: from the first request to the last answer.
        started: when.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    classes: tuple[str, ...]
    videos: tuple[LabelledVideo, ...]
    positions: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    truths: tuple[tuple[int, ...], ...]
    failures: tuple[Failure, ...]
    unknown_labels: tuple[str, ...]
    milliseconds: Floats
    truncated: npt.NDArray[np.bool_]
    seconds: float
    started: datetime

    def __post_init__(self) -> None:
        answered, failed = len(self.positions), len(self.failures)
        if {len(each) for each in (self.scores, self.truths, self.milliseconds, self.truncated)} != {answered}:
            raise ValueError("positions, scores, truths, milliseconds and truncated are about the same videos")
        if answered + failed != len(self.videos):
            raise ValueError(f"{len(self.videos)} videos cannot be {answered} answered and {failed} failed ones")
        if self.scores.shape[1:] != (len(self.classes),):
            raise ValueError(f"scores have a column for each of {len(self.classes)} classes, got {self.scores.shape}")

    @cached_property
    def per_video(self) -> Mapping[str, Floats]:
        """The figures that are means over videos, before the mean: float64 [N] by name."""
        return measure_videos(self.scores, self.truths)

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Every figure by name; empty if nothing was answered, without those of classes if no true label is a class."""
        if not self.answered:
            return {}
        others = {
            "mean_class_accuracy": _mean_or_nan(self._recall.share),
            "mean_average_precision": _mean_or_nan(self._average_precision),
            "expected_calibration_error": self.reliability.expected_error,
        }
        return summarise(self.per_video, others)

    def __getitem__(self, name: str) -> float:
        """Value of a figure: evaluation["top_1_accuracy"]."""
        return self.figures[name].value

    @property
    def answered(self) -> int:
        """N."""
        return len(self.positions)

    @property
    def failed(self) -> bool:
        """Whether any video has no answer."""
        return bool(self.failures)

    @property
    def videos_per_second(self) -> float:
        """Answered videos by the time the whole source took."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def failures_by_code(self) -> dict[str, int]:
        """How many failures of each kind, most frequent first."""
        return dict(Counter(failure.code for failure in self.failures).most_common())

    @cached_property
    def best(self) -> npt.NDArray[np.intp]:
        """Class indices of the best labels of each video, best first: [N, 5 or as many as a video has truths]."""
        return rank(self.scores, depth=max([*KS, *map(len, self.truths)]))

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Score of each video's top label, [N]."""
        return np.asarray(self.scores.max(axis=1))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each video's top label is true, [N]."""
        return np.asarray(self.per_video["top_1_accuracy"] == 1)

    @cached_property
    def reliability(self) -> Reliability:
        """How often answers are right, by their score. Raises ValueError if nothing was answered."""
        return measure_reliability(np.clip(self.confidence, 0, 1), self.correct)

    @cached_property
    def confusion(self) -> metrics.Confusion:
        """Truths against top labels, of the videos with one label that the model knows."""
        single = [row for row, true in enumerate(self.truths) if len(true) == 1 and true[0] >= 0]
        truths = np.array([self.truths[row][0] for row in single], dtype=np.int64)
        return metrics.confuse(self.best[single, 0] if single else np.empty(0, np.int64), truths)

    @cached_property
    def class_results(self) -> tuple[ClassResult, ...]:
        """The classes that have videos, in the model's order."""
        if not self.answered:
            return ()
        top_5 = metrics.class_recall(self.best, self.truths, classes=len(self.classes), k=5)
        return tuple(
            ClassResult(
                label=label,
                videos=int(self._recall.videos[index]),
                accuracy=float(self._recall.share[index]),
                top_5=float(top_5.share[index]),
                average_precision=float(self._average_precision[index]),
            )
            for index, label in enumerate(self.classes)
            if self._recall.videos[index]
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """Every figure, failure and answer as a JSON object, also written to `path` if there is one."""
        from clipserve.evaluation.documents import describe_evaluation

        return write_text(write_json(describe_evaluation(self), indent=2) + "\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """A page that needs nothing but itself, also written to `path` if there is one.

        Raises:
            InvalidRequest: matplotlib or jinja2 is not installed.
        """
        from clipserve.evaluation.pages import render_evaluation

        return write_text(render_evaluation(self), path)

    def show(self, console: "Console | None" = None) -> None:
        """Print the tables to the terminal. Raises InvalidRequest if rich is not installed."""
        (console or load("rich.console").Console()).print(self)

    def __rich__(self) -> "RenderableType":
        from clipserve.evaluation.tables import tabulate_evaluation

        return tabulate_evaluation(self)

    def __repr__(self) -> str:
        if not self.figures:
            return f"Evaluation({self.name!r}: none of {len(self.videos)} videos answered)"
        return (
            f"Evaluation({self.name!r}: top-1 {self.figures['top_1_accuracy']},"
            f" top-5 {self.figures['top_5_accuracy']}, {self.answered} of {len(self.videos)} videos answered)"
        )

    @cached_property
    def _recall(self) -> metrics.Recall:
        return metrics.class_recall(self.best, self.truths, classes=len(self.classes))

    @cached_property
    def _average_precision(self) -> Floats:
        return metrics.class_average_precision(self.scores, self.truths)


def write_text(text: str, path: str | Path | None) -> str:
    """Write to `path` if there is one; give the text back."""
    if path is not None:
        with open_atomically(path) as file:
            file.write(text)
    return text


def _mean_or_nan(values: Floats) -> float:
    """Mean of those that are numbers; NaN if none is, as with unknown labels only."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
