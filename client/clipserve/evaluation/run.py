"""Run evaluations: send labelled videos to one or several models and measure the predictions."""

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.arguments import Argument, build, takes
from clipserve.checks import check_choice, check_positive_int, check_seconds, check_timeout
from clipserve.classifier import VideoClassifier
from clipserve.connection import DEFAULT_URL, Connection, Tls, check_urls
from clipserve.errors import InvalidRequest
from clipserve.evaluation.class_folders import read_labelled
from clipserve.evaluation.comparison import Comparison
from clipserve.evaluation.evaluation import Evaluation
from clipserve.evaluation.ground_truth import LabelledSource
from clipserve.evaluation.predictions import Predictions
from clipserve.extras import load
from clipserve.options import RunArguments, SamplingOptions
from clipserve.sources.source import Source

UnknownLabels: TypeAlias = Literal["raise", "miss"]

# More than any model has. The server returns the labels that the model has.
ALL_CLASSES = 1_000_000
# How long a server may take to confirm that it has the models of a comparison.
READY_SECONDS = 5.0
# Modules that the metrics need.
REQUIRED_MODULES = ("sklearn.metrics", "scipy.stats")


@dataclass(frozen=True, kw_only=True)
class SendingOptions(SamplingOptions):
    """The options of `classify_many` that callers of `evaluate` and `fit` choose."""

    parallel: Annotated[int, Argument("as for `classify_many`", check_positive_int)] = RunArguments.parallel
    progress: Annotated[bool | None, Argument("as for `classify_many`")] = None
    retry_seconds: Annotated[float | None, Argument("as for `classify_many`", check_seconds)] = None
    timeout_seconds: Annotated[float | None, Argument("as for `classify_many`", check_timeout)] = None


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(SendingOptions):
    """How to run one evaluation."""

    unknown_labels: Annotated[
        UnknownLabels,
        Argument(
            "what happens if a true label is no class of the model: the evaluation ends with the first prediction"
            " ('raise'), or the label counts as missed ('miss')",
            partial(check_choice, choices=UnknownLabels),
        ),
    ] = "raise"


@dataclass(frozen=True)
class EvaluateArguments(EvaluationOptions):
    """The arguments of `evaluate`."""

    source: Annotated[
        Source,
        Argument(
            "what `classify_many` takes, with true labels: a CSV or JSON lines file or a data frame with the columns"
            " path and label, a folder with a folder for each class, or entries that have labels. All paths and labels"
            " are read before anything is sent"
        ),
    ] = field(repr=False)
    _: KW_ONLY
    model: Annotated[str, Argument("as for `VideoClassifier`")] = Connection.model
    url: Annotated[str | Sequence[str], Argument("as for `VideoClassifier`")] = DEFAULT_URL
    tls: Annotated[Tls | None, Argument("as for `VideoClassifier`")] = None
    headers: Annotated[Mapping[str, str] | None, Argument("as for `VideoClassifier`")] = field(default=None, repr=False)
    name: Annotated[str | None, Argument("name of the evaluation in reports; None: the model's name")] = None


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation to run.

    Attributes:
        name: how reports call the evaluation.
        classifier: the client of the model.
        url: address of the server, or several with commas between them, for the report.
        options: checked before anything is sent.
    """

    name: str
    classifier: VideoClassifier
    url: str
    options: EvaluationOptions

    def execute(self, source: LabelledSource) -> Evaluation:
        """Send every video. Raises what `evaluate` raises."""
        options = self.options
        predictions = Predictions(self.classifier.model, source.videos, allow_unknown=options.unknown_labels == "miss")
        started = datetime.now().astimezone()
        predictions.collect(
            self.classifier.classify_many(
                source.entries,
                top_k=ALL_CLASSES,
                **options.select(SendingOptions),
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
        given = {**self.options.select(SamplingOptions), "timeout_seconds": self.options.timeout_seconds}
        return {
            "url": hide_credentials(self.url),
            **{name: value for name, value in given.items() if value is not None},
            "parallel": self.options.parallel,
            "unknown_labels": self.options.unknown_labels,
        }


@takes(EvaluateArguments)
def evaluate(arguments: EvaluateArguments) -> Evaluation:
    """Classify labelled videos and measure the accuracy of the predictions.

    >>> evaluation = evaluate("labels.csv", model="x3d_m", sampling="clip", views=10, crops=3)
    >>> evaluation["top_1_accuracy"]
    0.759

    In labels, an underscore equals a space, and case does not count. Separate several true labels of one video by `|`,
    or give them as a JSON list. Videos that fail are listed in `failures` and count in no metric.

    Raises:
        InvalidRequest: an argument is not allowed, videos have no label, a label is no class of the model (the message
            names similar classes), or scikit-learn is not installed.
        UnknownModel, AccessDenied, ServerUnavailable, ModelNotReady: the server cannot classify the videos, or not the
            remaining ones.
    """
    check_installed()
    model, url = arguments.model, arguments.url
    with VideoClassifier(model, url, tls=arguments.tls, headers=arguments.headers) as classifier:
        run = EvaluationRun(arguments.name or model, classifier, check_urls("url", url), arguments)
        return run.execute(LabelledSource.read(read_labelled(arguments.source)))


def compare(
    source: Source,
    settings: Mapping[str, Mapping[str, Any]] | Iterable[str],
    *,
    url: str | Sequence[str] = DEFAULT_URL,
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
        settings: for each evaluation its name and its `EvaluationOptions` and `model`, or names of models.
        url, tls, headers: of the server that has all of the models, or of several such servers.
        shared: `EvaluationOptions` and `model` of every evaluation; `settings` overrides them.

    Raises:
        InvalidRequest: as for `evaluate`, or there are fewer than two settings. Raised before anything is sent if
            possible.
        UnknownModel, ModelNotReady, ServerUnavailable: the server does not have all of the models now.
    """
    check_installed()
    if not isinstance(settings, Mapping):
        settings = {model: {"model": model} for model in settings}
    if len(settings) < 2:
        raise InvalidRequest(f"a comparison needs two settings or more, with different names; got {list(settings)}")
    labelled = LabelledSource.read(read_labelled(source))
    with ExitStack() as stack:
        runs = []
        for name, own in settings.items():
            arguments = {**shared, **own}
            model = arguments.pop("model", Connection.model)
            classifier = stack.enter_context(VideoClassifier(model, url, tls=tls, headers=headers))
            options = build(EvaluationOptions, (), arguments, name="compare")
            runs.append(EvaluationRun(name, classifier, check_urls("url", url), options))
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
