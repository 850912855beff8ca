"""The result of a fit: the head, its accuracy, and where it is served; and how the head is fitted."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipserve.evaluation.evaluation import Evaluation
from clipserve.evaluation.metric_values import round_number
from clipserve.evaluation.report import Report
from clipserve.evaluation.run import describe_versions
from clipserve.extras import load
from clipserve.fitting.calibration import Calibration, find_temperature, scale_held_out
from clipserve.fitting.cross_validation import CurvePoint, Progress, choose_strength, cross_validate
from clipserve.fitting.examples import Examples
from clipserve.fitting.head import Coordinates, Head, fit_weights, softmax
from clipserve.fitting.publication import Publication

if TYPE_CHECKING:
    from rich.console import RenderableType

# Where half as many videos lose less than this, more of them gain little.
SMALL_LOSS = 0.01
MANY_VALUES = 4_000_000  # from here on, all cores multiply


@dataclass(frozen=True, repr=False, eq=False)
class Fitted(Report):
    """A head for a served model, and its metrics by cross-validation.

    Attributes:
        name: of the new model.
        on: the base model, whose features it uses.
        head: fitted to all videos that were not left out.
        held_out: the evaluation on held-out videos; each was classified by a head that was fitted without it.
        before, after: calibration on held-out videos, without the temperature and with it.
        temperature: the logits are divided by it; part of `head`.
        strength: of the data against the penalty, scikit-learn's C.
        folds: of the cross-validation.
        curve: the accuracy with fewer videos.
        fitting_seconds: time of the fit, without that of the features.
        publication: where it is served; None if it was not published.
    """

    _kind: ClassVar = "fit"
    _templates: ClassVar = "clipserve.fitting"

    name: str
    on: str
    head: Head
    held_out: Evaluation
    before: Calibration
    after: Calibration
    temperature: float
    strength: float
    folds: int
    curve: tuple[CurvePoint, ...]
    fitting_seconds: float
    publication: Publication | None = None

    @property
    def failed(self) -> bool:
        """Whether any video was left out."""
        return self.held_out.failed

    @property
    def advice(self) -> str:
        """Whether more videos would help, as a sentence."""
        videos = [result.videos for result in self.held_out.class_results]
        return advise(self.curve, guess=max(videos) / sum(videos))

    def __getitem__(self, name: str) -> float:
        """A metric of the held-out videos: fitted["top_1_accuracy"]."""
        return self.held_out[name]

    def __repr__(self) -> str:
        return (
            f"Fitted({self.name!r} on {self.on!r}: {len(self.head.classes)} classes, top-1"
            f" {self.held_out.metrics['top_1_accuracy']} on {self.held_out.answered} held-out videos)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and texts."""
        return {
            "name": self.name,
            "on": self.on,
            "classes": list(self.head.classes),
            "feature_size": self.head.feature_size,
            "folds": self.folds,
            "strength": self.strength,
            "temperature": round_number(self.temperature),
            "calibration": {"before": self.before.describe(), "after": self.after.describe()},
            "learning_curve": [point.describe() for point in self.curve],
            "advice": self.advice,
            "fitting_seconds": round_number(self.fitting_seconds),
            "publication": None if self.publication is None else asdict(self.publication),
            "held_out": self.held_out.to_dict(),
        }

    def draw_plots(self) -> dict[str, dict[str, str]]:
        """Those of the evaluation, and the learning curve; see `Report.draw_plots`."""
        from clipserve.fitting.curve_plot import draw_curve

        plots = self.held_out.draw_plots()
        plots[self.held_out.name]["curve"] = draw_curve(self.curve, salt=f"curve {self.name}")
        return plots

    def __rich__(self) -> "RenderableType":
        from clipserve.fitting.terminal_report import tabulate_fit

        return tabulate_fit(self.to_dict())


def advise(curve: tuple[CurvePoint, ...], *, guess: float) -> str:
    """Whether more videos would help, as a sentence.

    guess: the accuracy of always answering the most frequent class.
    """
    last = curve[-1]
    if last.interval is not None and last.interval.low <= guess:
        return (
            f"the accuracy, {100 * last.accuracy:.1f} %, may be chance: always answering the most frequent class gives"
            f" {100 * guess:.1f} %, so these features may not distinguish the classes"
        )
    near = next(point for point in curve if last.accuracy - point.accuracy <= SMALL_LOSS)
    reached = f"{100 * last.accuracy:.1f} %"
    if near is not last:
        return (
            f"with {count_videos(near)} a class the accuracy is {100 * near.accuracy:.1f} %, with {count_videos(last)}"
            f" {reached}: more are not likely to help"
        )
    if 1 - last.accuracy <= SMALL_LOSS:
        return f"with {count_videos(last)} a class the accuracy is {reached}: more cannot help much"
    if len(curve) < 2:
        return f"there are too few videos to say whether more would help; with these the accuracy is {reached}"
    gain = 100 * (last.accuracy - curve[-2].accuracy)
    return (
        f"with {count_videos(last)} a class the accuracy is {reached}, {gain:.1f} points more than with"
        f" {count_videos(curve[-2])}: more are likely to help"
    )


def count_videos(point: CurvePoint) -> str:
    """Such as `13 videos`."""
    count = round(point.videos_per_class)
    return f"{count} {'video' if count == 1 else 'videos'}"


@dataclass(frozen=True)
class Origin:
    """What a report says about where its figures come from."""

    name: str
    on: str
    settings: Mapping[str, Any]
    started: datetime


def fit_head(examples: Examples, origin: Origin, *, progress: Progress = lambda _: None) -> Fitted:
    """A head for these videos, and what it is worth on videos that it has not seen."""
    # Hundreds of small fits: with more threads each waits for the others (threadpoolctl comes with scikit-learn).
    with load("threadpoolctl", "evaluation").threadpool_limits(1 if examples.vectors.size < MANY_VALUES else None):
        return _fit_head(examples, origin, progress)


def _fit_head(examples: Examples, origin: Origin, progress: Progress) -> Fitted:
    started = time.perf_counter()
    classes, truths = len(examples.classes), examples.truths
    coordinates = Coordinates.of(examples.vectors)
    points = coordinates.apply(examples.vectors)
    held_out = cross_validate(points, truths, classes=classes, progress=progress)
    scores = scale_held_out(held_out.logits, truths, held_out.folds)
    temperature = find_temperature(held_out.logits, truths)
    progress("fitting to all videos")
    strength = choose_strength(points, truths, classes=classes)
    weights, bias = fit_weights(points, truths, classes=classes, strength=strength)
    folds = int(held_out.folds.max()) + 1
    evaluation = Evaluation(
        name=origin.name,
        model=origin.name,
        settings={"features of": origin.on, **origin.settings, "held out in": f"{folds} folds"},
        versions=describe_versions(),
        classes=examples.classes,
        videos=examples.videos,
        positions=examples.positions,
        scores=scores.astype(np.float32),
        truths=tuple((int(truth),) for truth in truths),
        failures=examples.failures,
        unknown_labels=(),
        milliseconds=examples.milliseconds,
        truncated=examples.truncated,
        seconds=examples.seconds,
        started=origin.started,
    )
    return Fitted(
        name=origin.name,
        on=origin.on,
        head=coordinates.make_head(examples.classes, weights, bias, temperature=temperature),
        held_out=evaluation,
        before=Calibration.measure(softmax(held_out.logits), truths),
        after=Calibration.measure(scores, truths),
        temperature=temperature,
        strength=strength,
        folds=folds,
        curve=held_out.curve,
        fitting_seconds=time.perf_counter() - started,
    )
