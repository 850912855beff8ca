"""Asking models about labelled videos: the way from a source to an evaluation or a comparison."""

import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.checks import check_choice, check_timeout, read_int
from clipserve.classifier import VideoClassifier
from clipserve.connection import Connection, Tls
from clipserve.errors import InvalidRequest
from clipserve.evaluation import answers
from clipserve.evaluation.comparisons import Comparison
from clipserve.evaluation.evaluations import Evaluation
from clipserve.evaluation.extra import MEASURING, check_installed
from clipserve.options import RunArguments, SamplingOptions
from clipserve.signatures import Doc, build, rename_old
from clipserve.sources.source import Source, read_entries

UnknownLabels: TypeAlias = Literal["raise", "miss"]

# More than any model has: the server returns as many as there are.
ALL_CLASSES = 1_000_000
# How long a server may take to say that it has the models of a comparison.
READY_SECONDS = 5.0
# What evaluation itself asks for.
NOT_FOR_CALLERS = ("top_k", "features", "report")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(SamplingOptions):
    """What an evaluation asks about each video."""

    timeout_seconds: Annotated[float | None, Doc("deadline of each call", "SECONDS")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout_seconds is not None:
            object.__setattr__(self, "timeout_seconds", check_timeout(self.timeout_seconds))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model with its settings, checked before anything is sent.

    Attributes:
        name: of the evaluation.
        classifier: asks the model.
        url: of its server, for the report.
        parallel, retry_seconds, progress: as for `classify_many`.
        unknown_labels: what becomes of true labels that are no class of the model.
        options: what to ask, see `EvaluationOptions`.
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
        if taken := [name for name in NOT_FOR_CALLERS if name in self.options]:
            raise InvalidRequest(f"an evaluation asks for all scores by itself: leave out {', '.join(taken)}")
        build(EvaluationOptions, (), self.options)

    def run(self, source: answers.Source) -> Evaluation:
        """Ask about every video. Raises what `evaluate` says."""
        sheet = answers.AnswerSheet(self.classifier.model, source.videos, may_miss=self.unknown_labels == "miss")
        started = datetime.now().astimezone()
        sheet.fill(
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
            classes=sheet.classes.names,
            videos=source.videos,
            positions=sheet.positions,
            scores=sheet.scores,
            truths=sheet.truths,
            failures=tuple(sheet.failures),
            unknown_labels=tuple(sheet.unknown),
            milliseconds=sheet.milliseconds,
            truncated=sheet.truncated,
            seconds=sheet.seconds,
            started=started,
        )

    def describe_settings(self) -> dict[str, Any]:
        """What a reader needs to repeat this; credentials are left out."""
        # Python's numbers, whatever the caller gave.
        checked = vars(build(EvaluationOptions, (), self.options))
        asked = {name: checked[name] for name in self.options if checked[name] is not None}
        return {
            "url": hide_credentials(self.url),
            "sampling": SamplingOptions.sampling,
            "quality": SamplingOptions.quality,
            **asked,
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
    """Ask a model about videos whose labels are known, and measure its answers.

    >>> evaluation = evaluate("labels.csv", model="x3d_m", sampling="clip", views=10, crops=3)
    >>> evaluation["top_1_accuracy"]
    0.759

    Underscores in labels match spaces, and case does not count. A video with several true labels has them separated
    by `|`, or as a JSON list. Videos that fail are kept in `failures`, and in no figure.

    Args:
        source: whatever `classify_many` takes, with true labels: a CSV or JSON lines file or a data frame with the
            columns path and label, or entries that have labels. Its paths and labels are read before anything is sent.
        model, url, tls, headers: as for `VideoClassifier`.
        name: what to call it beside others; None: the model's name.
        parallel, progress, retry_seconds: as for `classify_many`.
        unknown_labels: a true label that is no class of the model ends the evaluation at the first answer ("raise"),
            or counts as one that is never found ("miss").
        options: sampling, views, crops, start, end, quality and timeout_seconds, as for `classify`.

    Raises:
        InvalidRequest: an argument is not what is allowed, videos have no label, a label is no class of the model
            (names those it may have meant), or scikit-learn is not installed.
        UnknownModel, AccessDenied, ServerUnavailable, ModelNotReady: no video could be answered, or no more of them.
    """
    check_installed(MEASURING)
    options = rename_old(options, stacklevel=3)
    retry_seconds = options.pop("retry_seconds", retry_seconds)
    with VideoClassifier(model, url, tls=tls, headers=headers) as classifier:
        trial = Trial(
            name=name or model,
            classifier=classifier,
            url=url,
            parallel=parallel,
            retry_seconds=retry_seconds,
            progress=progress,
            unknown_labels=unknown_labels,
            options=options,
        )
        return trial.run(answers.read_labelled(tuple(read_entries(source))))


def compare(
    source: Source,
    settings: Mapping[str, Mapping[str, Any]] | Iterable[str],
    *,
    url: str = Connection.url,
    tls: Tls | None = None,
    headers: Mapping[str, str] | None = None,
    **shared: Any,
) -> Comparison:
    """Evaluate several models, or settings of one, on the same videos, one after the other.

    >>> comparison = compare("labels.csv", ["x3d_s", "x3d_m"])
    >>> settings = {"one view": {}, "ten clips": {"sampling": "clip", "views": 10}}
    >>> comparison = compare("labels.csv", settings, model="x3d_m")
    >>> comparison.show()

    The first one is what the others are held against.

    Args:
        source: as for `evaluate`. Open files are read by the first evaluation alone, so give their paths.
        settings: arguments of `evaluate` by the name of each evaluation, or names of models.
        url, tls, headers: of the server that all of them ask.
        shared: arguments of `evaluate` that stand where `settings` says nothing else.

    Raises:
        InvalidRequest: as for `evaluate`, or there are fewer than two settings; before anything is sent where it can
            be known.
        UnknownModel, ModelNotReady, ServerUnavailable: the server does not have all of the models now.
    """
    check_installed(MEASURING)
    if not isinstance(settings, Mapping):
        settings = {model: {"model": model} for model in settings}
    if len(settings) < 2:
        raise InvalidRequest(f"a comparison takes two settings or more, by different names; got {list(settings)}")
    labelled = answers.read_labelled(tuple(read_entries(source)))
    with ExitStack() as stack:
        trials = []
        for name, own in settings.items():
            arguments = {**shared, **own}
            model = arguments.pop("model", Connection.model)
            classifier = stack.enter_context(VideoClassifier(model, url, tls=tls, headers=headers))
            trials.append(plan_trial(name, classifier, url, arguments))
        return run_trials(trials, labelled)


def plan_trial(name: str, classifier: VideoClassifier, url: str, arguments: Mapping[str, Any]) -> Trial:
    """Tell the arguments about the run from those about each video. Raises InvalidRequest for a wrong one."""
    arguments = rename_old(arguments)
    about_run = ("parallel", "retry_seconds", "progress", "unknown_labels")
    options: Any = {key: value for key, value in arguments.items() if key not in about_run}
    return Trial(
        name=name,
        classifier=classifier,
        url=url,
        options=options,
        **{key: arguments[key] for key in about_run if key in arguments},
    )


def run_trials(trials: Iterable[Trial], source: answers.Source) -> Comparison:
    """Run each, once the server has the models of all of them."""
    trials = list(trials)
    for trial in trials:
        trial.classifier.wait_until_ready(timeout_seconds=READY_SECONDS)
    return Comparison({trial.name: trial.run(source) for trial in trials})


def describe_versions() -> dict[str, str]:
    """Versions of what computes the figures."""
    packages = ("clipserve", "numpy", "scipy", "scikit-learn")
    return {**{package: version(package) for package in packages}, "Python": platform.python_version()}


def hide_credentials(url: str) -> str:
    """`url` without a user's name and password, and without what follows a question mark."""
    return re.sub(r"^([a-z]+://)?[^/@]*@", r"\1", url).partition("?")[0]
