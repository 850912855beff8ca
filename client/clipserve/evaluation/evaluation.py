"""The result of evaluating one model on labelled videos."""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from clipserve.evaluation.ground_truth import LabelledVideo
from clipserve.evaluation.metric_values import KS, MetricValue, measure_videos, round_number, summarise
from clipserve.evaluation.metrics import (
    Confusion,
    Floats,
    Recall,
    Reliability,
    class_average_precision,
    class_recall,
    count_confusion,
    measure_reliability,
    rank_classes,
)
from clipserve.evaluation.report import Report


@dataclass(frozen=True)
class Failure:
    """A video without a prediction: its position in the source, and `code` and `message` of the error."""

    position: int
    id: str
    video: str
    code: str
    message: str


@dataclass(frozen=True)
class ClassResult:
    """The result for one class: how many videos have it as a true label, and how well they are found.

    Attributes:
        accuracy: share of these videos whose top label is the class.
        top_5: share of these videos that have the class among the best 5 labels.
        average_precision: of the class's score as a detector of these videos among all videos.
    """

    label: str
    videos: int
    accuracy: float
    top_5: float
    average_precision: float


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Report):
    """The predictions of a model for labelled videos, and the metrics that follow from them.

    All metrics are about the N videos that have a prediction. `failures` lists the others.

    Attributes:
        name: how reports call this evaluation; the model's name if none was given.
        model: name of the model.
        settings: the options of the requests, without credentials.
        versions: of the packages that computed the metrics.
        classes: the K labels of the model; () if there is no prediction.
        videos: every video of the source, in the order of the source.
        positions: int [N], the positions in `videos` of those with a prediction.
        scores: float32 [N, K].
        truths: N tuples of class indices; a label that names no class of the model has a negative index.
        failures: the videos without a prediction.
        unknown_labels: true labels that are not in `classes`. They count as missed.
        milliseconds: float64 [N], from the request to the response.
        truncated: bool [N], whether the server reports that bytes of the video are missing or damaged.
        seconds: from the first request to the last response.
        started: when the run began.
    """

    _kind: ClassVar = "evaluation"

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
            raise ValueError(f"scores have one column per class, {len(self.classes)}; got {self.scores.shape}")

    @cached_property
    def per_video(self) -> Mapping[str, Floats]:
        """The metrics that are means over videos, before the mean: float64 [N] by name."""
        return measure_videos(self.scores, self.truths)

    @cached_property
    def metrics(self) -> Mapping[str, MetricValue]:
        """Every metric by name. Empty without predictions; without class metrics if no true label is a class."""
        if not self.answered:
            return {}
        others = {
            "mean_class_accuracy": _mean_or_nan(self._recall.share),
            "mean_average_precision": _mean_or_nan(self._average_precision),
            "expected_calibration_error": self.reliability.expected_error,
        }
        return summarise(self.per_video, others)

    @property
    def figures(self) -> Mapping[str, MetricValue]:
        """Deprecated: `metrics`."""
        text = "Evaluation.figures is deprecated; use Evaluation.metrics. Version 0.3 drops it"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self.metrics

    def __getitem__(self, name: str) -> float:
        """Value of a metric: evaluation["top_1_accuracy"]."""
        return self.metrics[name].value

    @property
    def answered(self) -> int:
        """N, the number of videos with a prediction."""
        return len(self.positions)

    @property
    def failed(self) -> bool:
        """Whether any video has no prediction."""
        return bool(self.failures)

    @property
    def videos_per_second(self) -> float:
        """N divided by the seconds that the whole source took."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def failures_by_code(self) -> dict[str, int]:
        """The number of failures with each error code, most frequent first."""
        return dict(Counter(failure.code for failure in self.failures).most_common())

    @cached_property
    def best(self) -> npt.NDArray[np.intp]:
        """Class indices of the best labels of each video, best first: [N, 5 or the most truths of any video]."""
        return rank_classes(self.scores, depth=max([*KS, *map(len, self.truths)]))

    @cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Score of each video's top label, [N]."""
        return np.asarray(self.scores.max(axis=1))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each video's top label is true, [N]."""
        return np.asarray(self.per_video["top_1_accuracy"] == 1)

    @cached_property
    def reliability(self) -> Reliability:
        """Confidence compared with accuracy. Raises ValueError without predictions."""
        return measure_reliability(np.clip(self.confidence, 0, 1), self.correct)

    @cached_property
    def confusion(self) -> Confusion:
        """Top labels by true class, of the videos with exactly one true label that the model knows."""
        single = [row for row, true in enumerate(self.truths) if len(true) == 1 and true[0] >= 0]
        truths = np.array([self.truths[row][0] for row in single], dtype=np.int64)
        return count_confusion(self.best[single, 0] if single else np.empty(0, np.int64), truths)

    @cached_property
    def class_results(self) -> tuple[ClassResult, ...]:
        """The classes that have videos, in the model's order."""
        if not self.answered:
            return ()
        top_5 = class_recall(self.best, self.truths, classes=len(self.classes), k=5)
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

    def __repr__(self) -> str:
        if not self.metrics:
            return f"Evaluation({self.name!r}: none of {len(self.videos)} videos answered)"
        return (
            f"Evaluation({self.name!r}: top-1 {self.metrics['top_1_accuracy']},"
            f" top-5 {self.metrics['top_5_accuracy']}, {self.answered} of {len(self.videos)} videos answered)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and texts: all but the scores of every class. NaN is None."""
        return {
            "name": self.name,
            "model": self.model,
            "started": self.started.isoformat(timespec="seconds"),
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "videos": len(self.videos),
            "answered": self.answered,
            "failed": len(self.failures),
            "truncated": int(self.truncated.sum()),
            "seconds": round_number(self.seconds),
            "videos_per_second": round_number(self.videos_per_second),
            "milliseconds": self._describe_milliseconds(),
            "metrics": {name: metric.describe() for name, metric in self.metrics.items()},
            "model_classes": len(self.classes),
            "classes": [
                {key: round_number(value) if isinstance(value, float) else value for key, value in asdict(one).items()}
                for one in self.class_results
            ],
            "confusions": [
                {"truth": self.classes[truth], "answer": self.classes[predicted], "videos": count}
                for truth, predicted, count in self.confusion.pairs()
            ],
            "calibration": self._describe_calibration(),
            "reliability": self._describe_reliability(),
            "failures_by_code": self.failures_by_code,
            "failures": [
                {"id": failure.id, "video": failure.video, "code": failure.code, "message": failure.message}
                for failure in self.failures
            ],
            "unknown_labels": list(self.unknown_labels),
            "answers": [
                {
                    "id": self.videos[position].id,
                    "video": self.videos[position].video,
                    "truth": list(self.videos[position].labels),
                    "answer": self.classes[self.best[row, 0]],
                    "score": round_number(self.confidence[row]),
                    "correct": bool(self.correct[row]),
                    "truncated": bool(self.truncated[row]),
                }
                for row, position in enumerate(self.positions.tolist())
            ],
        }

    def draw_plots(self) -> dict[str, dict[str, str]]:
        """The reliability diagram and the confusion matrix; see `Report.draw_plots`."""
        from clipserve.evaluation.plots import draw_confusion, draw_reliability

        if not self.answered:
            return {self.name: {}}
        plots = {"reliability": draw_reliability(self.reliability, salt=f"reliability {self.name}")}
        if self.confusion.classes.size:
            plots["confusion"] = draw_confusion(self.confusion, self.classes, salt=f"confusion {self.name}")
        return {self.name: plots}

    @cached_property
    def _recall(self) -> Recall:
        return class_recall(self.best, self.truths, classes=len(self.classes))

    @cached_property
    def _average_precision(self) -> Floats:
        return class_average_precision(self.scores, self.truths)

    def _describe_milliseconds(self) -> dict[str, float | None]:
        if not self.answered:
            return {"median": None, "p95": None}
        median, p95 = np.percentile(self.milliseconds, [50, 95])
        return {"median": round_number(median), "p95": round_number(p95)}

    def _describe_calibration(self) -> dict[str, float | None]:
        if not self.answered:
            return {}
        return {
            "expected_error": round_number(self.reliability.expected_error),
            "largest_error": round_number(self.reliability.largest_error),
            "mean_score": round_number(self.confidence.mean()),
            "accuracy": round_number(self.correct.mean()),
        }

    def _describe_reliability(self) -> list[dict[str, float | int | None]]:
        """The bins of the reliability diagram."""
        if not self.answered:
            return []
        edges = self.reliability.edges
        return [
            {
                "low": round_number(edges[number]),
                "high": round_number(edges[number + 1]),
                "answers": int(self.reliability.counts[number]),
                "confidence": round_number(self.reliability.confidence[number]),
                "accuracy": round_number(self.reliability.accuracy[number]),
            }
            for number in range(len(self.reliability.counts))
        ]


def _mean_or_nan(values: Floats) -> float:
    """Mean without the NaNs; NaN if there is nothing else, as where the model knows no true label."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
