"""The server behind the page: which models it has, and what it answers about a file."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clipserve.classifier import VideoClassifier
from clipserve.connection import Connection
from clipserve.errors import AccessDenied, InvalidRequest, ServerUnavailable, VideoNotReadable
from clipserve.options import RequestOptions
from clipserve.results import Prediction
from clipserve.timeline.options import TimelineOptions
from clipserve.timeline.timelines import Timeline

OpenClassifier = Callable[[str], VideoClassifier]


@dataclass(frozen=True)
class Classification:
    """The prediction for one file and what the page shows with it.

    Attributes:
        name: name of the file, without its folder.
        video: the bytes that were sent.
        milliseconds: from the request to the response.
    """

    name: str
    video: bytes
    options: RequestOptions
    prediction: Prediction
    milliseconds: float

    @property
    def report(self) -> dict[str, Any]:
        """What the server did with the video."""
        return dict(self.prediction.report or {})

    @property
    def decode_milliseconds(self) -> float:
        """The share of `milliseconds` that decoding took, by the server's clock."""
        return min(self.milliseconds, float(self.report.get("decode_milliseconds", 0.0)))

    @property
    def other_milliseconds(self) -> float:
        """The remaining share: the network, the queues and the transport."""
        return self.milliseconds - self.decode_milliseconds


class ModelServer:
    """A clipserve server, with a classifier for each model that was used.

    Args:
        open_classifier: makes the classifier of a model. All visitors share it; leaving the `with` block closes it.
        url: address of the server, for messages.
        named: the only model to offer if the server does not list its models.
    """

    def __init__(self, open_classifier: OpenClassifier, url: str, *, named: str | None = None) -> None:
        self.url = url
        self._named = named
        self.open_classifier = open_classifier
        self._classifiers: dict[str, VideoClassifier] = {}

    def models(self) -> list[str]:
        """The models that take videos. Raises ServerError."""
        # Listing needs a classifier, and any model's name will do.
        with self.open_classifier(Connection.model) as classifier:
            try:
                return classifier.models()
            except AccessDenied:
                if self._named is None:
                    raise
                return [self._named]

    def classify(self, file: Path, model: str, options: RequestOptions) -> Classification:
        """Classify a file. Raises ClipserveError, whose messages name the file without its folder."""
        video = NamedBytes.of_file(file)
        started = time.perf_counter()
        try:
            prediction = self._classifier(model).classify(video, **options.settings())
        except ServerUnavailable:
            # gRPC tries an old connection again only every two seconds; a new one finds the server once it is back.
            self._classifiers.pop(model, None)
            raise
        milliseconds = (time.perf_counter() - started) * 1000
        return Classification(file.name, video.getvalue(), options, prediction, milliseconds)

    def follow(self, file: Path, model: str, options: TimelineOptions) -> Timeline:
        """Begin the timeline of a file. Raises ClipserveError, whose messages name the file without its folder."""
        return self._classifier(model).timeline(NamedBytes.of_file(file), progress=False, **options.settings())

    def _classifier(self, model: str) -> VideoClassifier:
        # setdefault is atomic. A classifier that lost a race has not connected, so nothing needs to close it.
        return self._classifiers.get(model) or self._classifiers.setdefault(model, self.open_classifier(model))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for classifier in self._classifiers.values():
            classifier.close()


class NamedBytes(io.BytesIO):
    """Bytes with the name of a file. The folder of an uploaded file would mean nothing to the visitor."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """The file's. Raises VideoNotReadable."""
        try:
            return cls(file.read_bytes(), file.name)
        except OSError as error:
            raise VideoNotReadable(f"{file.name!r} is no longer here: upload it again", video=file.name) from error


def choose_model(models: list[str], wanted: str | None) -> str | None:
    """The model that the page starts with: `wanted`, else the client's default, else the first one.

    Raises:
        InvalidRequest: the server does not have the wanted model.
    """
    if wanted is None:
        return Connection.model if Connection.model in models else next(iter(models), None)
    if models and wanted not in models:
        raise InvalidRequest(f"the server has no model {wanted!r}; it has {', '.join(models)}")
    return wanted
