"""The predictions of one evaluation: float32 scores of every class and a few facts about each video."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest, UnexpectedAnswer
from clipserve.evaluation.evaluation import Failure
from clipserve.evaluation.ground_truth import ClassNames, LabelledVideo, describe_unknown
from clipserve.results import Prediction, Row
from clipserve.runs.streams import RowStream
from clipserve.runs.summary import SERVER_WIDE_ERRORS

# The server writes scores with six digits. Where two are equal, its order of the labels, which it took from all digits,
# decides; this difference keeps that order.
SMALLEST_STEP = 1e-12


class Predictions:
    """What a model predicts for the videos of a source, in the order of the source.

    Attributes:
        classes: the model's labels, known from the first prediction on.
        failures: the videos without a prediction.
        unknown: true labels that name no class of the model.
        seconds: from the first request to the last response.
    """

    def __init__(self, model: str, videos: Sequence[LabelledVideo], *, allow_unknown: bool) -> None:
        self.classes = ClassNames(())
        self.failures: list[Failure] = []
        self.unknown: list[str] = []
        self.seconds = 0.0
        self._model = model
        self._videos = videos
        self._allow_unknown = allow_unknown
        self._scores: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._positions: list[int] = []
        self._milliseconds: list[float] = []
        self._truncated: list[bool] = []
        self._truths: list[tuple[int, ...]] = []

    def collect(self, stream: RowStream) -> None:
        """Take every row of `stream`, whose rows come in the order of the videos.

        Raises:
            InvalidRequest: a true label names no class of the model, and unknown labels are not allowed.
            ClipserveError: an error after which no video can succeed.
        """
        start = time.perf_counter()
        with stream:
            for position, row in enumerate(stream):
                self._add(position, row)
        self.seconds = time.perf_counter() - start

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 [N, K] of the N videos with a prediction and the K classes."""
        return self._scores[: len(self._positions)]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """int [N]: the positions of these videos in the source."""
        return np.array(self._positions, dtype=np.int64)

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """float64 [N]: from the request to the response."""
        return np.array(self._milliseconds, dtype=np.float64)

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """bool [N]: whether the server reports that bytes of the video are missing or damaged."""
        return np.array(self._truncated, dtype=np.bool_)

    @property
    def truths(self) -> tuple[tuple[int, ...], ...]:
        """The true class indices of each of the N videos; a negative index is no class of the model."""
        return tuple(self._truths)

    def _add(self, position: int, row: Row) -> None:
        # Metrics over the videos before the server went away would say little about the model.
        if isinstance(row.error, SERVER_WIDE_ERRORS):
            raise row.error
        if row.error is not None:
            self.failures.append(Failure(position, row.id, row.video, row.error.code, str(row.error)))
            return
        assert row.prediction is not None  # a row has one of the two
        if not self.classes.names:
            self._learn_classes(row.prediction)
        if read_classes(row.prediction) != dict(enumerate(self.classes.names)):
            raise UnexpectedAnswer(
                f"model {self._model!r} scored other classes for {row.video!r} ({len(row.prediction)}) than before"
                f" ({len(self.classes.names)}): the server replaced the model during the run; evaluate again",
                video=row.video,
                model=self._model,
            )
        index, scores = read_scores(row.prediction)
        self._scores[len(self._positions), index] = scores
        self._truths.append(self.classes.find_all(self._videos[position].labels, self.unknown))
        self._positions.append(position)
        self._milliseconds.append(row.milliseconds)
        self._truncated.append(bool(row.prediction.truncated))

    def _learn_classes(self, prediction: Prediction) -> None:
        """Take the classes from the first prediction, and check all true labels now, before hours are spent."""
        names = read_classes(prediction)
        if sorted(names) != list(range(len(prediction))):
            raise UnexpectedAnswer(
                f"model {self._model!r} did not score each of its classes once",
                video=prediction.video,
                model=self._model,
            )
        self.classes = ClassNames(tuple(names[index] for index in range(len(names))))
        self._scores = np.empty((len(self._videos), len(names)), dtype=np.float32)
        unknown: list[str] = []
        for video in self._videos:
            self.classes.find_all(video.labels, unknown)
        if unknown and not self._allow_unknown:
            raise InvalidRequest(
                f"{describe_unknown(unknown, self.classes, self._model)}. Correct them, or count their videos as missed"
                " with unknown_labels='miss' (--unknown-labels miss)."
            )


def read_classes(prediction: Prediction) -> dict[int, str]:
    """The labels by class index."""
    return {scored.index: scored.label for scored in prediction}


def read_scores(prediction: Prediction) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Class indices, best first, and their scores as float32, strictly decreasing."""
    scores = np.array([scored.score for scored in prediction], dtype=np.float32)
    for place in range(len(scores) - 2, -1, -1):
        if scores[place] <= scores[place + 1]:
            below = scores[place + 1]
            scores[place] = max(np.nextafter(below, np.float32(2)), below + np.float32(SMALLEST_STEP))
    return [scored.index for scored in prediction], scores
