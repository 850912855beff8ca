"""Evaluation of timelines: their segments compared with true ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipserve.atomic_files import save_text
from clipserve.classifier import VideoClassifier
from clipserve.errors import InvalidRequest
from clipserve.evaluation.ground_truth import normalise
from clipserve.extras import load
from clipserve.names import make_printable
from clipserve.pages import render
from clipserve.runs.summary import SERVER_WIDE_ERRORS
from clipserve.tables.formats import write_json
from clipserve.timeline.detection import THRESHOLDS, ClassDetection, measure_classes
from clipserve.timeline.many import Part
from clipserve.timeline.options import TimelineOptions, TimelineRunArguments
from clipserve.timeline.page import Row, choose_marks
from clipserve.timeline.progress import format_time
from clipserve.timeline.segments import Segment, SegmentOptions, segments
from clipserve.timeline.truth import TrueSegment, Truth
from clipserve.timeline.window_file import VideoTimeline

MOST_VIDEOS_SHOWN = 100


@dataclass(frozen=True)
class EvaluatedVideo:
    """One video: its true segments, those that the model gives, and how long it is. error: why it was left out."""

    video: str
    true: tuple[TrueSegment, ...]
    found: tuple[Segment, ...] = ()
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, repr=False)
class TimelineEvaluation:
    """The segments that a model predicts for labelled videos, and their average precision.

    Attributes:
        model: name of the model.
        settings: options of the timelines and of the segments.
        videos: in the order of the ground truth. Videos that failed count in no metric.
        classes: the result for each label of the ground truth.
    """

    model: str
    settings: Mapping[str, Any]
    videos: tuple[EvaluatedVideo, ...]
    classes: tuple[ClassDetection, ...]
    thresholds: tuple[float, ...] = field(default=THRESHOLDS)

    @property
    def mean_average_precision(self) -> dict[float, float]:
        """The mean over the classes, by threshold of temporal IoU."""
        measured = [one for one in self.classes if one.true]
        return {
            threshold: sum(one.average_precision[threshold] for one in measured) / len(measured) if measured else 0.0
            for threshold in self.thresholds
        }

    @property
    def average(self) -> float:
        """The mean over the thresholds."""
        return sum(self.mean_average_precision.values()) / len(self.thresholds)

    @property
    def failed(self) -> int:
        """How many videos have no complete timeline."""
        return sum(bool(video.error) for video in self.videos)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain dicts, lists, numbers and texts; figures of 0 to 1."""
        return {
            "model": self.model,
            "settings": dict(self.settings),
            "videos": len(self.videos),
            "failed": self.failed,
            "mean_average_precision": {str(key): value for key, value in self.mean_average_precision.items()},
            "average": self.average,
            "classes": [
                {
                    "label": one.label,
                    "true": one.true,
                    "found": one.found,
                    "average_precision": {str(key): value for key, value in one.average_precision.items()}
                    if one.true
                    else None,
                }
                for one in self.classes
            ],
            "failures": [{"video": video.video, "message": video.error} for video in self.videos if video.error],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """The result as a JSON object. Also written to `path` if given."""
        return save_text(write_json(self.to_dict(), indent=2) + "\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The result as a page that loads nothing else: figures, and both timelines of each video.

        Raises:
            InvalidRequest: jinja2 is not installed.
        """
        return save_text(_render(self), path)

    def show(self) -> None:
        """Print the tables. Raises InvalidRequest if rich is not installed."""
        console, tables, text = load("rich.console", "cli"), load("rich.table", "cli"), load("rich.text", "cli").Text
        columns = [f"{threshold:g}" for threshold in self.thresholds]
        title = "Average precision in %, by temporal IoU"
        table = tables.Table("class", "true", "found", *columns, "mean", title=title, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for one in self.classes:
            shares = [*one.average_precision.values(), one.mean] if one.true else []
            cells = [f"{100 * share:.1f}" for share in shares]
            table.add_row(text(make_printable(one.label)), str(one.true), str(one.found), *cells)
        table.add_section()
        means = [*self.mean_average_precision.values(), self.average]
        table.add_row("mean", "", "", *(f"{100 * share:.1f}" for share in means), style="bold")
        console.Console().print(table)


def evaluate_timelines(
    classifier: VideoClassifier,
    truth: Truth,
    options: TimelineOptions | None = None,
    joining: SegmentOptions | None = None,
    *,
    parallel: int = TimelineRunArguments.parallel,
    progress: bool | None = None,
) -> TimelineEvaluation:
    """Compute the timeline of each video of the ground truth, join its windows, and compare.

    >>> with VideoClassifier("x3d_m") as classifier:
    ...     evaluation = evaluate_timelines(classifier, Truth.read("truth.csv"))
    >>> evaluation.average

    Labels match as in `evaluate`: an underscore equals a space, and case does not count. Segments with labels that the
    ground truth does not have count in no metric.

    Raises:
        ClipserveError: no video can be classified, such as without a server. Failures of single videos are in the
            result.
    """
    options, joining = options or TimelineOptions(), joining or SegmentOptions()
    names = list(truth.videos)
    at_work: dict[int, VideoTimeline] = {}  # a window takes some 3 KB
    done: dict[int, EvaluatedVideo] = {}
    arguments = TimelineRunArguments((), parallel=parallel, progress=progress, **options.settings())
    parts = (Part(number, entry) for number, entry in enumerate(truth.videos.values()))
    with classifier.continue_timelines(parts, arguments) as rows:
        for row in rows:
            if isinstance(row.error, SERVER_WIDE_ERRORS):
                raise row.error
            name = names[row.number]
            timeline = at_work.setdefault(row.number, VideoTimeline(row.number, name, name))
            timeline.facts = row.facts
            if row.window is not None:
                timeline.windows.append(row.window)
                continue
            del at_work[row.number]
            found = tuple(segments(timeline.windows, joining)) if row.error is None else ()
            done[row.number] = EvaluatedVideo(
                name, truth.segments[name], found, timeline.length_seconds, str(row.error or "")
            )
    videos = tuple(done[number] for number in range(len(names)))
    answered = [video for video in videos if not video.error]
    if not answered:
        raise InvalidRequest(f"none of {len(videos)} videos has a timeline; the first error: {videos[0].error}")
    classes = measure_classes(
        {video.video: video.true for video in answered}, {video.video: video.found for video in answered}, truth.labels
    )
    settings = {**options.settings(), **{f"segments.{name}": value for name, value in vars(joining).items()}}
    return TimelineEvaluation(classifier.model, settings, videos, tuple(classes))


def _render(evaluation: TimelineEvaluation) -> str:
    strips = [_describe(video) for video in evaluation.videos[:MOST_VIDEOS_SHOWN] if not video.error]
    return render(
        "clipserve.timeline",
        "evaluation_of_timelines.html",
        {"evaluation": evaluation, "strips": strips},
        filters={"clock": format_time, "percent": lambda share: f"{100 * share:.1f} %"},
    )


def _describe(video: EvaluatedVideo) -> dict[str, Any]:
    """Two rows a label: the true segments, and below them those of the model."""
    parts: list[TrueSegment | Segment] = [*video.true, *video.found]
    length = max([video.seconds, *(one.end_seconds for one in parts)]) or 1.0
    rows = []
    for name in dict.fromkeys(normalise(one.label) for one in parts):
        label = next(one.label for one in parts if normalise(one.label) == name)
        rows.append(Row(label, [one for one in video.true if normalise(one.label) == name], kind="truth"))
        rows.append(Row(label, [one for one in video.found if normalise(one.label) == name], kind="found"))
    return {"name": video.video, "length": length, "thumbnails": [], "rows": rows, "marks": choose_marks(length)}
