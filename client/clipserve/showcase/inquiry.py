"""What the page asks of the server, and what it tells about the answer."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clipserve.classifier import VideoClassifier
from clipserve.connection import Connection
from clipserve.errors import AccessDenied, InvalidRequest, VideoNotReadable
from clipserve.options import RequestOptions
from clipserve.results import Prediction

OpenClassifier = Callable[[str], VideoClassifier]


@dataclass(frozen=True)
class Inquiry:
    """One classification, as the page shows it.

    Attributes:
        name: of the file, without its folder.
        video: the bytes that were sent.
        milliseconds: from sending to the answer.
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
        """The share of decoding; the report counts it on the server's clock."""
        return min(self.milliseconds, float(self.report.get("decode_milliseconds", 0.0)))

    @property
    def other_milliseconds(self) -> float:
        """All the rest: the model, waiting in queues, the way there and back."""
        return self.milliseconds - self.decode_milliseconds


class Server:
    """The server behind the page: a classifier for each model that was asked.

    Args:
        open_classifier: makes one for the model of that name. They are shared by all visitors and closed on leaving.
        url: for messages.
        named: the model to go by where the server keeps its list of models from us.
    """

    def __init__(self, open_classifier: OpenClassifier, url: str, *, named: str | None = None) -> None:
        self.url = url
        self._named = named
        self._open = open_classifier
        self._classifiers: dict[str, VideoClassifier] = {}

    def models(self) -> list[str]:
        """The models that take videos, as far as the server tells. Raises ServerError."""
        # Asking for the list needs a classifier, but no model of that name.
        with self._open(Connection.model) as classifier:
            try:
                return classifier.models()
            except AccessDenied:
                if self._named is None:
                    raise
                return [self._named]

    def ask(self, file: Path, model: str, options: RequestOptions) -> Inquiry:
        """Classify a file. Raises ClipserveError, with messages that name the file and no folder."""
        try:
            video = file.read_bytes()
        except OSError as error:
            raise VideoNotReadable(f"{file.name!r} is no longer here: upload it again", video=file.name) from error
        named = NamedBytes(video, file.name)
        started = time.perf_counter()
        prediction = self._classifier(model).classify(
            named,
            **options.settings(),
        )
        milliseconds = (time.perf_counter() - started) * 1000
        return Inquiry(file.name, video, options, prediction, milliseconds)

    def _classifier(self, model: str) -> VideoClassifier:
        # setdefault is atomic; the one that lost a race never connected.
        return self._classifiers.get(model) or self._classifiers.setdefault(model, self._open(model))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for classifier in self._classifiers.values():
            classifier.close()


class NamedBytes(io.BytesIO):
    """Bytes with a file's name: an uploaded file lies in a folder whose name would mean nothing to its sender."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def choose_model(models: list[str], wanted: str | None) -> str | None:
    """The model to begin with: the one wanted, the client's default, or the first there is.

    Raises:
        InvalidRequest: the one wanted is not there.
    """
    if wanted is None:
        return Connection.model if Connection.model in models else next(iter(models), None)
    if models and wanted not in models:
        raise InvalidRequest(f"the server has no model {wanted!r}; it has {', '.join(models)}")
    return wanted
