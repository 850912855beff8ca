"""The answers of one run, gathered as they come: float32 scores and a few facts a video, nothing else."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest, ModelNotReady, ServerUnavailable, UnexpectedAnswer
from clipserve.evaluation.evaluations import Failure, LabelledVideo
from clipserve.evaluation.truths import ClassNames, describe_unknown, split_label
from clipserve.results import Prediction, Row
from clipserve.runs.streams import RowStream
from clipserve.runs.summary import FATAL_ERRORS
from clipserve.sources.entries import Entry

# Figures over the videos that a server answered before it went away would say little about the model.
HOPELESS = (*FATAL_ERRORS, ServerUnavailable, ModelNotReady)

# Scores come with six digits. Equal ones are told apart by their order, which the server took from all digits.
SMALLEST_STEP = 1e-12


@dataclass(frozen=True)
class Source:
    """Videos with true labels: what to send, and what is known about it, in the same order."""

    entries: tuple[Entry, ...]
    videos: tuple[LabelledVideo, ...]


def read_labelled(entries: Sequence[Entry]) -> Source:
    """Take the true labels of `entries` apart.

    Raises:
        InvalidRequest: there are no videos, or some have no label; names them.
    """
    if not entries:
        raise InvalidRequest("there is no video in this source, so there is nothing to evaluate")
    videos = [LabelledVideo(entry.spelt_id, entry.name, split_label(entry.spelt_label or "")) for entry in entries]
    # A line that names no video fails by itself, with its own message.
    bare = [video for video, entry in zip(videos, entries, strict=True) if not (video.labels or _is_bad(entry))]
    if len(bare) == len(videos):
        raise InvalidRequest(
            f"none of {len(videos)} videos has a true label to compare with: give a CSV or JSON lines file, or a data"
            " frame, with the columns path and label"
        )
    if bare:
        names = ", ".join(repr(video.id) for video in bare[:5]) + (" ..." if len(bare) > 5 else "")
        raise InvalidRequest(
            f"{len(bare)} of {len(videos)} videos have no true label: {names}. Fill in their column `label`, or leave"
            " them out of the source."
        )
    return Source(tuple(entries), tuple(videos))


class AnswerSheet:
    """What a model answered about the videos of a source, row by row.

    Attributes:
        classes: the model's labels; known from the first answer on.
        failures: the videos without an answer.
        unknown: true labels that are no class of the model.
        seconds: from the first request to the last answer.
    """

    def __init__(self, model: str, videos: Sequence[LabelledVideo], *, may_miss: bool) -> None:
        self.classes = ClassNames(())
        self.failures: list[Failure] = []
        self.unknown: list[str] = []
        self.seconds = 0.0
        self._model = model
        self._videos = videos
        self._may_miss = may_miss
        self._scores: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._positions: list[int] = []
        self._milliseconds: list[float] = []
        self._truncated: list[bool] = []
        self._truths: list[tuple[int, ...]] = []

    def fill(self, stream: RowStream) -> None:
        """Take every row of `stream`, which comes in the order of the videos.

        Raises:
            InvalidRequest: a true label is no class of the model, and that is not to count as a miss.
            ClipserveError: what no video can succeed after.
        """
        start = time.perf_counter()
        with stream:
            for position, row in enumerate(stream):
                self._add(position, row)
        self.seconds = time.perf_counter() - start

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 [N, K] of the N videos answered."""
        return self._scores[: len(self._positions)]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """int [N]: where the answered videos are in the source."""
        return np.array(self._positions, dtype=np.int64)

    @property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """float64 [N]: from sending to the answer."""
        return np.array(self._milliseconds, dtype=np.float64)

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """bool [N]: whether the server says that bytes of the video are missing or damaged."""
        return np.array(self._truncated, dtype=np.bool_)

    @property
    def truths(self) -> tuple[tuple[int, ...], ...]:
        """Class indices of each of the N videos; negative ones are no class of the model."""
        return tuple(self._truths)

    def _add(self, position: int, row: Row) -> None:
        if isinstance(row.error, HOPELESS):
            raise row.error
        if row.error is not None:
            self.failures.append(Failure(position, row.id, row.video, row.error.code, str(row.error)))
            return
        assert row.prediction is not None  # a row has one of the two
        if not self.classes.names:
            self._open(row.prediction)
        if len(row.prediction) != len(self.classes.names):
            raise UnexpectedAnswer(
                f"model {self._model!r} scored {len(row.prediction)} classes of {row.video!r} and"
                f" {len(self.classes.names)} before: it was replaced in the middle; evaluate again",
                video=row.video,
                model=self._model,
            )
        index, scores = read_scores(row.prediction)
        self._scores[len(self._positions), index] = scores
        self._truths.append(self.classes.locate(self._videos[position].labels, self.unknown))
        self._positions.append(position)
        self._milliseconds.append(row.milliseconds)
        self._truncated.append(bool(row.prediction.truncated))

    def _open(self, prediction: Prediction) -> None:
        """Now the classes are known: make room, and look at all true labels before hours are spent."""
        names = {scored.index: scored.label for scored in prediction}
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
            self.classes.locate(video.labels, unknown)
        if unknown and not self._may_miss:
            raise InvalidRequest(
                f"{describe_unknown(unknown, self.classes, self._model)}. Correct them, or let their videos count as"
                " missed with unknown_labels='miss' (--unknown-labels miss)."
            )


def read_scores(prediction: Prediction) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Class indices, best first, and their scores, float32 and strictly falling."""
    scores = np.array([scored.score for scored in prediction], dtype=np.float32)
    for place in range(len(scores) - 2, -1, -1):
        if scores[place] <= scores[place + 1]:
            below = scores[place + 1]
            scores[place] = max(np.nextafter(below, np.float32(2)), below + np.float32(SMALLEST_STEP))
    return [scored.index for scored in prediction], scores


def _is_bad(entry: Entry) -> bool:
    return isinstance(entry.video, Exception)
