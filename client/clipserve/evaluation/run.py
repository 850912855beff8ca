"""Run evaluations: send labelled videos to one or several models and measure the predictions."""

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.arguments import Argument, build, rename_old
from clipserve.checks import check_choice, check_timeout, read_int
from clipserve.classifier import VideoClassifier
from clipserve.connection import Connection, Tls
from clipserve.errors import InvalidRequest
from clipserve.evaluation.comparison import Comparison
from clipserve.evaluation.evaluation import Evaluation
from clipserve.evaluation.ground_truth import LabelledSource
from clipserve.evaluation.predictions import Predictions
from clipserve.extras import load
from clipserve.options import RunArguments, SamplingOptions
from clipserve.sources.source import Source, read_entries

UnknownLabels: TypeAlias = Literal["raise", "miss"]

# More than any model has. The server returns the labels that the model has.
ALL_CLASSES = 1_000_000
# How long a server may take to confirm that it has the models of a comparison.
READY_SECONDS = 5.0
# Options that the evaluation sets itself.
RESERVED_OPTIONS = ("top_k", "features", "report")
# Options of a run; all others are about each request.
RUN_OPTIONS = ("parallel", "retry_seconds", "progress", "unknown_labels")
# Modules that the metrics need.
REQUIRED_MODULES = ("sklearn.metrics", "scipy.stats")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(SamplingOptions):
    """The options of each request of an evaluation."""

    timeout_seconds: Annotated[float | None, Argument("deadline of each call", check_timeout, metavar="SECONDS")] = None


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """One model with the settings of its evaluation. They are checked before anything is sent.

    Attributes:
        name: how reports call the evaluation.
        classifier: the client of the model.
        url: address of the server, for the report.
        parallel, retry_seconds, progress: as for `classify_many`.
        unknown_labels: what happens if a true label is no class of the model.
        options: the options of each request, see `EvaluationOptions`.
    """

    name: str
    classifier: VideoClassifier
    url: str
    parallel: int = RunArguments.parallel
    retry_seconds: float | None = None
    progress: bool | None = None
    unknown_labels: UnknownLabels = "raise"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("unknown_labels", self.unknown_labels, UnknownLabels)
        if taken := [name for name in RESERVED_OPTIONS if name in self.options]:
            raise InvalidRequest(f"an evaluation requests all scores by itself: leave out {', '.join(taken)}")
        build(EvaluationOptions, (), self.options)

    @classmethod
    def plan(cls, name: str, classifier: VideoClassifier, url: str, arguments: Mapping[str, Any]) -> "EvaluationRun":
        """Make a run from arguments of `evaluate`. Raises InvalidRequest for a wrong one."""
        arguments = rename_old(arguments)
        options = {key: value for key, value in arguments.items() if key not in RUN_OPTIONS}
        run_options = {key: arguments[key] for key in RUN_OPTIONS if key in arguments}
        return cls(name=name, classifier=classifier, url=url, options=options, **run_options)

    def execute(self, source: LabelledSource) -> Evaluation:
        """Send every video. Raises what `evaluate` raises."""
        predictions = Predictions(self.classifier.model, source.videos, allow_unknown=self.unknown_labels == "miss")
        started = datetime.now().astimezone()
        predictions.collect(
            self.classifier.classify_many(
                source.entries,
                parallel=self.parallel,
                retry_seconds=self.retry_seconds,
                progress=self.progress,
                top_k=ALL_CLASSES,
                **self.options,
            )
        )
        return Evaluation(
            name=self.name,
            model=self.classifier.model,
            settings=self.describe_settings(),
            versions=describe_versions(),
            classes=predictions.classes.names,
            videos=source.videos,
            positions=predictions.positions,
            scores=predictions.scores,
            truths=predictions.truths,
            failures=tuple(predictions.failures),
            unknown_labels=tuple(predictions.unknown),
            milliseconds=predictions.milliseconds,
            truncated=predictions.truncated,
            seconds=predictions.seconds,
            started=started,
        )

    def describe_settings(self) -> dict[str, Any]:
        """The settings that a reader needs to repeat the run, without credentials."""
        # The checked values are Python's numbers, whatever type the caller gave.
        checked = vars(build(EvaluationOptions, (), self.options))
        given = {name: checked[name] for name in self.options if checked[name] is not None}
        return {
            "url": hide_credentials(self.url),
            "sampling": SamplingOptions.sampling,
            "quality": SamplingOptions.quality,
            **given,
            "parallel": read_int(self.parallel),
            "unknown_labels": self.unknown_labels,
        }


def evaluate(
    source: Source,
    *,
    model: str = Connection.model,
    url: str = Connection.url,
    name: str | None = None,
    parallel: int = RunArguments.parallel,
    unknown_labels: UnknownLabels = "raise",
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    progress: bool | None = None,
    retry_seconds: float | None = None,
    **options: Any,
) -> Evaluation:
    """Classify videos with known labels and measure how good the predictions are.

    >>> evaluation = evaluate("labels.csv", model="x3d_m", sampling="clip", views=10, crops=3)
    >>> evaluation["top_1_accuracy"]
    0.759

    Underscores in labels match spaces, and case does not count. Several true labels of one video are separated by `|`
    or given as a JSON list. Videos that fail are listed in `failures` and count in no metric.

    Args:
        source: what `classify_many` takes, with true labels: a CSV or JSON lines file or a data frame with the columns
            path and label, or entries that have labels. All paths and labels are read before anything is sent.
        model, url, tls, headers: as for `VideoClassifier`.
        name: how reports call the evaluation; None: the model's name.
        parallel, progress, retry_seconds: as for `classify_many`.
        unknown_labels: what happens if a true label is no class of the model: the evaluation ends with the first
            prediction ("raise"), or the label counts as missed ("miss").
        options: sampling, views, crops, start, end, quality and timeout_seconds, as for `classify`.

    Raises:
        InvalidRequest: an argument is not allowed, videos have no label, a label is no class of the model (the message
            names similar classes), or scikit-learn is not installed.
        UnknownModel, AccessDenied, ServerUnavailable, ModelNotReady: the server cannot classify the videos, or not the
            remaining ones.
    """
    check_installed()
    options = rename_old(options, stacklevel=3)
    retry_seconds = options.pop("retry_seconds", retry_seconds)
    with VideoClassifier(model, url, tls=tls, headers=headers) as classifier:
        run = EvaluationRun(
            name=name or model,
            classifier=classifier,
            url=url,
            parallel=parallel,
            retry_seconds=retry_seconds,
            progress=progress,
            unknown_labels=unknown_labels,
            options=options,
        )
        return run.execute(LabelledSource.read(read_entries(source)))


def compare(
    source: Source,
    settings: Mapping[str, Mapping[str, Any]] | Iterable[str],
    *,
    url: str = Connection.url,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    **shared: Any,
) -> Comparison:
    """Evaluate several models, or several settings of one, on the same videos, one after the other.

    >>> comparison = compare("labels.csv", ["x3d_s", "x3d_m"])
    >>> settings = {"one view": {}, "ten clips": {"sampling": "clip", "views": 10}}
    >>> comparison = compare("labels.csv", settings, model="x3d_m")
    >>> comparison.show()

    The first evaluation is the baseline of the others.

    Args:
        source: as for `evaluate`. Give paths and no open files: only the first evaluation can read an open file.
        settings: arguments of `evaluate` by the name of each evaluation, or names of models.
        url, tls, headers: of the server that has all of the models.
        shared: arguments of `evaluate` for every evaluation; `settings` overrides them.

    Raises:
        InvalidRequest: as for `evaluate`, or there are fewer than two settings. Raised before anything is sent if
            possible.
        UnknownModel, ModelNotReady, ServerUnavailable: the server does not have all of the models now.
    """
    check_installed()
    if not isinstance(settings, Mapping):
        settings = {model: {"model": model} for model in settings}
    if len(settings) < 2:
        raise InvalidRequest(f"a comparison takes two settings or more, by different names; got {list(settings)}")
    labelled = LabelledSource.read(read_entries(source))
    with ExitStack() as stack:
        runs = []
        for name, own in settings.items():
            arguments = {**shared, **own}
            model = arguments.pop("model", Connection.model)
            classifier = stack.enter_context(VideoClassifier(model, url, tls=tls, headers=headers))
            runs.append(EvaluationRun.plan(name, classifier, url, arguments))
        return execute_all(runs, labelled)


def execute_all(runs: Sequence[EvaluationRun], source: LabelledSource) -> Comparison:
    """Execute each run, once the server has the models of all of them."""
    for run in runs:
        run.classifier.wait_until_ready(timeout_seconds=READY_SECONDS)
    return Comparison({run.name: run.execute(source) for run in runs})


def check_installed() -> None:
    """Raise InvalidRequest now if the metrics cannot be computed, and not after hours of requests."""
    for module in REQUIRED_MODULES:
        load(module, "evaluation")


def describe_versions() -> dict[str, str]:
    """Versions of the packages that compute the metrics."""
    packages = ("clipserve", "numpy", "scipy", "scikit-learn")
    return {**{package: version(package) for package in packages}, "Python": platform.python_version()}


def hide_credentials(url: str) -> str:
    """`url` without a user's name and password, and without the query after a question mark."""
    return re.sub(r"^([a-z]+://)?[^/@]*@", r"\1", url).partition("?")[0]
