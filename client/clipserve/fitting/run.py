"""`fit`: features of labelled videos, a head for them, its metrics, and the model."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from clipserve.arguments import Argument, takes
from clipserve.checks import check_bool, check_positive_int
from clipserve.classifier import VideoClassifier
from clipserve.connection import DEFAULT_URL, Connection, Tls, check_urls
from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.evaluation.class_folders import read_labelled
from clipserve.evaluation.ground_truth import LabelledSource
from clipserve.evaluation.run import ALL_CLASSES, SendingOptions, check_installed, hide_credentials
from clipserve.fitting.cross_validation import Progress
from clipserve.fitting.examples import Examples, LabelledVectors, list_classes, require_enough
from clipserve.fitting.fitted import Fitted, Origin, fit_head
from clipserve.fitting.publication import Place, Publication, compare_answers
from clipserve.fleet.targets import DnsName, split_urls
from clipserve.options import EmbedArguments, SamplingOptions
from clipserve.sources.addresses import is_elsewhere
from clipserve.sources.entries import Entry
from clipserve.sources.remote_paths import hide_secrets
from clipserve.sources.source import Source
from clipserve.tables.embeddings import read_vectors

REPOSITORY = Path("model_repository")
CHECKED_VIDEOS = 5  # asked of the new model

OpenClassifier = Callable[[str], VideoClassifier]


@dataclass(frozen=True, kw_only=True)
class FitOptions(SendingOptions):
    """How to fit a head."""

    features: Annotated[
        str | PathLike[str] | None,
        Argument(
            "vectors that `embed` wrote (.npy or .parquet), in place of the server's; rows match by id", metavar="FILE"
        ),
    ] = None
    publish: Annotated[bool, Argument("publish the model, and let the server load it", check_bool)] = True
    repository: Annotated[
        str | PathLike[str],
        Argument("the server's model repository, which has the model `on`", metavar="DIR"),
    ] = REPOSITORY
    version: Annotated[
        int | None,
        Argument("publish as this version; by default the next one", check_positive_int, metavar="N"),
    ] = None


@dataclass(frozen=True)
class FitArguments(FitOptions):
    """The arguments of `fit`."""

    source: Annotated[
        Source | None,
        Argument(
            "videos with labels: a folder with a folder for each class, a CSV or JSON lines file or a data frame with"
            " the columns path and label, or entries that have labels. None: the rows of `features`"
        ),
    ] = field(default=None, repr=False)
    _: KW_ONLY
    on: Annotated[str, Argument("the base model, whose features the new model uses")] = Connection.model
    name: Annotated[str, Argument("name of the new model")] = ""
    url: Annotated[str | Sequence[str], Argument("as for `VideoClassifier`")] = DEFAULT_URL
    tls: Annotated[Tls | None, Argument("as for `VideoClassifier`")] = None
    headers: Annotated[Mapping[str, str] | None, Argument("as for `VideoClassifier`")] = field(default=None, repr=False)


@takes(FitArguments)
def fit(arguments: FitArguments) -> Fitted:
    """Fit a linear head to your classes, on the features of a served model, and serve it as a new model.

    >>> fitted = fit("videos/", on="x3d_m", name="my_actions")
    >>> fitted["top_1_accuracy"]  # of held-out videos
    0.93
    >>> VideoClassifier("my_actions").classify("clip.mp4")

    Videos that fail are listed in `held_out.failures`, and left out.

    Raises:
        InvalidRequest: an argument is not allowed, no head can be fitted to these labels, the model cannot be published
            in this repository, or scikit-learn is not installed.
        UnknownModel, AccessDenied, ServerUnavailable, ModelNotReady: the server cannot embed the videos, or not the
            remaining ones.
    """

    def open_classifier(model: str) -> VideoClassifier:
        return VideoClassifier(model, arguments.url, tls=arguments.tls, headers=arguments.headers)

    run = FitRun(
        arguments.on,
        arguments.name,
        open_classifier,
        check_urls("url", arguments.url),
        arguments,
        tls=arguments.tls,
        headers=arguments.headers,
    )
    return run.execute(arguments.source)


@dataclass(frozen=True)
class FitRun:
    """One fit.

    Attributes:
        on, name: as of `fit`.
        open_classifier: makes the classifier of a model.
        url: address of the server, or several with commas between them.
        options: checked before anything is sent.
        report_step: called with what is being done.
        tls, headers: of the connection that lets the server load the model.
    """

    on: str
    name: str
    open_classifier: OpenClassifier
    url: str
    options: FitOptions
    report_step: Progress = lambda _: None
    tls: Tls | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)

    def execute(self, source: Source | None) -> Fitted:
        """Do it all. Raises what `fit` raises."""
        check_installed()
        if not self.name:
            raise InvalidRequest("the new model needs a name: name='my_actions' (--name my_actions)")
        place = None
        if self.options.publish:
            place = Place.choose(Path(self.options.repository), on=self.on, name=self.name)
        started = datetime.now().astimezone()
        labelled = None if source is None else LabelledSource.read(read_labelled(source))
        if labelled is not None:  # before hours are spent on features
            self.require_possible(place, labelled)
        examples = Examples.select(self.get_vectors(labelled))
        if place and examples.vectors.shape[1] != place.trunk.feature_size:
            raise InvalidRequest(
                f"these vectors have {examples.vectors.shape[1]} values, and features of {self.on} have"
                f" {place.trunk.feature_size}: embed with the model of --on"
            )
        if place and labelled is None:  # the file of features names the classes, and exists in any case
            place.require_classes(examples.classes, version=self.options.version)
        fitted = fit_head(examples, self.describe(started), progress=self.report_step)
        if place is None:
            return fitted
        return self.publish(place, fitted, labelled, examples)

    def require_possible(self, place: Place | None, labelled: LabelledSource) -> None:
        """Raise InvalidRequest where these labels cannot make this model, whatever the features are."""
        errors = [entry.video for entry in labelled.entries if isinstance(entry.video, ClipserveError)]
        if len(errors) == len(labelled.entries):
            raise InvalidRequest(f"there is no video to fit to: {errors[0]}")
        classes, indices = list_classes(labelled.videos)
        require_enough(classes, np.array([index for index in indices if index >= 0]), (), labelled.videos)
        if place is not None:
            place.require_classes(classes, version=self.options.version)

    def get_vectors(self, labelled: LabelledSource | None) -> LabelledVectors:
        """The features of every video: from the file, or from the server."""
        options = self.options
        if options.features is not None:
            return LabelledVectors.look_up(read_vectors(options.features), labelled.videos if labelled else None)
        if labelled is None:
            raise InvalidRequest("there are no videos: give a list, a folder, or a file of features (--features)")
        with self.open_classifier(self.on) as classifier:
            stream = classifier.classify_many(
                labelled.entries,
                features=True,
                top_k=EmbedArguments.top_k,
                **options.select(SendingOptions),
            )
            return LabelledVectors.collect(stream, labelled.videos)

    def describe(self, started: datetime) -> Origin:
        """For the report."""
        options = self.options
        sampling = {name: value for name, value in options.select(SamplingOptions).items() if value is not None}
        if options.features is not None:
            settings: dict[str, Any] = {"features": hide_secrets(str(options.features))}
        else:
            settings = {"url": hide_credentials(self.url), **sampling, "parallel": options.parallel}
        return Origin(self.name, self.on, settings, started)

    def publish(self, place: Place, fitted: Fitted, labelled: LabelledSource | None, examples: Examples) -> Fitted:
        """Publish the head, let the server load it, and compare a few of its answers with the head's.

        What fails here becomes a note: the features may have taken hours, so that the report is made in any case.
        """
        options, head = self.options, fitted.head
        self.report_step("publishing")
        accuracy = fitted.held_out.metrics["top_1_accuracy"]
        publication = Publication(None, str(options.repository))
        try:
            version = place.publish(
                head,
                version_number=options.version,
                accuracy=f"top-1 {100 * accuracy.value:.1f} on {fitted.held_out.answered} held-out videos"
                " (clipserve fit)",
                protocol=(options.sampling, options.views or 1, options.crops or 1),
                report=fitted.to_json(),
            )
            publication = replace(publication, version=version)
            self.report_step("loading it")
            for url in split_urls(self.url):
                if DnsName.parse(url):
                    raise InvalidRequest(
                        f"{url} stands for several servers, and each has to load the model: clipserve versions"
                        f" {self.name} --reload HOST:PORT, for every one of them"
                    )
                place.reload(url, tls=self.tls, headers=self.headers)
            publication = replace(publication, loaded=True)
            self.report_step("asking it")
            publication = self.check(publication, fitted, labelled, examples)
        except ClipserveError as error:
            publication = publication.with_note(f"{publication.describe(self.name)}: {error}")
        return replace(fitted, publication=publication)

    def check(
        self, publication: Publication, fitted: Fitted, labelled: LabelledSource | None, examples: Examples
    ) -> Publication:
        """Ask the served model about a few videos. Raises ClipserveError where it does not answer."""
        rows = choose_rows(examples, labelled)
        if not rows:
            return publication.with_note(
                f"{self.name} is served; no video was here to ask it about, so whether its features are those that it"
                " was fitted to is not known"
            )
        positions = examples.positions[rows].tolist()
        entries = [find_entry(examples, labelled, position) for position in positions]
        with self.open_classifier(self.name) as classifier:
            classifier.wait_until_ready()
            answering = classifier.model_version()
            if answering not in (None, str(publication.version)):
                return publication.with_note(
                    f"version {publication.version} of {self.name} is published, but version {answering} answers:"
                    f" clipserve versions {self.name} --serve {publication.version} --reload {self.url}"
                )
            predictions = [self._ask(classifier, entry) for entry in entries]
        vectors = examples.vectors[rows]
        feature_error, score_error = compare_answers(predictions, vectors, fitted.head.score(vectors))
        publication = replace(
            publication, checked_videos=len(rows), feature_error=feature_error, score_error=score_error
        )
        note = (
            f"{self.name} is served: for {len(rows)} of these videos its scores differ from the head's by"
            f" {score_error:.1g} at most"
        )
        if not publication.agrees:
            note = (
                f"{self.name} is served, but its features differ by {feature_error:.2f} from those of the fit: the"
                f" server's {self.on} is not the one in {publication.repository}, or the features are of other frames"
            )
        return publication.with_note(note)

    def _ask(self, classifier: VideoClassifier, entry: Entry) -> Any:
        assert not isinstance(entry.video, ClipserveError)  # it has features
        return classifier.classify(
            entry.video, top_k=ALL_CLASSES, features=True, retry=True, **self.options.select(SamplingOptions)
        )


def find_entry(examples: Examples, labelled: LabelledSource | None, position: int) -> Entry:
    """The video at a position of the source, or of the file of features, which names it."""
    if labelled is not None:
        return labelled.entries[position]
    video = examples.videos[position]
    return Entry(video.id, video.video)


def choose_rows(examples: Examples, labelled: LabelledSource | None) -> list[int]:
    """Some of the vectors, first to last, whose videos can be read again: not an open file, or one that is not here."""

    def is_here(row: int) -> bool:
        video = find_entry(examples, labelled, int(examples.positions[row])).video
        return isinstance(video, str | PathLike) and (is_elsewhere(os.fspath(video)) or Path(video).is_file())

    rows = [row for row in range(len(examples.positions)) if is_here(row)]
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(CHECKED_VIDEOS, len(rows))).astype(int)]
