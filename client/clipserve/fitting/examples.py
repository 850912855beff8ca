"""Labelled videos with their feature vectors: what a head is fitted to."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipserve.errors import InvalidRequest
from clipserve.evaluation.evaluation import Failure
from clipserve.evaluation.ground_truth import LabelledSource, LabelledVideo, normalise
from clipserve.fitting.cross_validation import LEAST_VIDEOS
from clipserve.fitting.head import Integers
from clipserve.names import read_name
from clipserve.runs.streams import RowStream
from clipserve.runs.summary import SERVER_WIDE_ERRORS
from clipserve.sources.entries import Entry
from clipserve.tables.embeddings import StoredVectors
from clipserve.tables.table import check_size

NAMES_IN_MESSAGE = 5
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Examples:
    """Videos with one true label each. N of them have a vector that counts.

    Attributes:
        videos: every video of the source.
        classes: K labels, in alphabetical order.
        positions: int [N], of the videos that count.
        vectors: float32 [N, D].
        truths: int [N], class indices.
        failures: the other videos: no vector, or a copy of another one.
        milliseconds: float64 [N], from request to response; 0 for vectors from a file.
        truncated: bool [N], whether bytes of the video are missing or damaged.
        seconds: from the first request to the last response.
    """

    videos: tuple[LabelledVideo, ...]
    classes: tuple[str, ...]
    positions: Integers
    vectors: Vectors
    truths: Integers
    failures: tuple[Failure, ...]
    milliseconds: npt.NDArray[np.float64]
    truncated: npt.NDArray[np.bool_]
    seconds: float = 0.0

    @classmethod
    def select(cls, vectors: "LabelledVectors") -> "Examples":
        """Those that count: copies of a video are left out.

        Raises:
            InvalidRequest: no head can be fitted to them; says why, and what would be enough.
        """
        classes, indices = list_classes(vectors.videos)
        failures, kept, first = list(vectors.failures), [], dict[bytes, int]()
        for row, position in enumerate(vectors.positions):
            key = hashlib.sha256(vectors.vectors[row].tobytes()).digest()
            original = first.setdefault(key, position)
            if original == position:
                kept.append(row)
                continue
            video, other = vectors.videos[position], vectors.videos[original]
            message = f"has the same features as {other.id!r}, which counts"
            if indices[position] != indices[original]:
                message += f", with the label {other.labels[0]!r}, and not {video.labels[0]!r}: correct one of them"
            failures.append(Failure(position, video.id, video.video, "copy", message))
        positions = [vectors.positions[row] for row in kept]
        truths = np.array([indices[position] for position in positions], dtype=np.int64)
        require_enough(classes, truths, failures, vectors.videos)
        return cls(
            videos=vectors.videos,
            classes=classes,
            positions=np.array(positions, dtype=np.int64),
            vectors=vectors.vectors[kept],
            truths=truths,
            failures=tuple(sorted(failures, key=lambda failure: failure.position)),
            milliseconds=np.array([vectors.milliseconds[row] for row in kept], dtype=np.float64),
            truncated=np.array([vectors.truncated[row] for row in kept], dtype=np.bool_),
            seconds=vectors.seconds,
        )


@dataclass(frozen=True, eq=False)
class LabelledVectors:
    """Feature vectors as they came, in the order of the source; attributes as of `Examples`."""

    videos: tuple[LabelledVideo, ...]
    positions: Sequence[int]
    vectors: Vectors
    failures: Sequence[Failure]
    milliseconds: Sequence[float]
    truncated: Sequence[bool]
    seconds: float = 0.0

    @classmethod
    def collect(cls, stream: RowStream, videos: tuple[LabelledVideo, ...]) -> "LabelledVectors":
        """Take every row of a run with features, whose rows come in the order of `videos`.

        Raises:
            InvalidRequest: the model has no features.
            ClipserveError: an error after which no video can succeed.
        """
        positions, found, milliseconds, truncated, failures = [], [], [], [], []
        start = time.perf_counter()
        with stream:
            for position, row in enumerate(stream):
                if isinstance(row.error, SERVER_WIDE_ERRORS):
                    raise row.error
                if row.error is not None:
                    failures.append(Failure(position, row.id, row.video, row.error.code, str(row.error)))
                    continue
                assert row.prediction is not None  # a row has one of the two
                if row.prediction.features is None:
                    raise InvalidRequest(
                        f"model {row.prediction.model!r} returns no features, which a fit needs: choose another model"
                        " with --on"
                    )
                if not np.isfinite(row.prediction.features).all():
                    message = "its features are NaN or infinite"
                    failures.append(Failure(position, row.id, row.video, "bad-features", message))
                    continue
                positions.append(position)
                found.append(row.prediction.features)
                check_size(found[-1], found[0].size, row)
                milliseconds.append(row.milliseconds)
                truncated.append(bool(row.prediction.truncated))
        vectors = np.stack(found) if found else np.empty((0, 0), np.float32)
        return cls(videos, positions, vectors, failures, milliseconds, truncated, time.perf_counter() - start)

    @classmethod
    def look_up(cls, stored: StoredVectors, labelled: Sequence[LabelledVideo] | None) -> "LabelledVectors":
        """Vectors that `clipserve embed` wrote, with their own labels, or those of `labelled` by id.

        Raises:
            InvalidRequest: there are no labels, no vector is that of a labelled video, or an id stands for two videos.
        """
        found: Sequence[int | None]
        if labelled is None:
            if not any(stored.labels):
                raise InvalidRequest(
                    "these vectors have no labels: embed a list that has the column label, or give the list as well"
                )
            rows_as_read = zip(stored.ids, stored.videos, stored.labels, strict=True)
            labelled = LabelledSource.read(
                Entry(read_name(id), read_name(video), read_name(label or "")) for id, video, label in rows_as_read
            ).videos
            found = range(len(labelled))
        else:
            require_distinct(zip(stored.ids, stored.videos, strict=True))
            require_distinct((video.id, video.video) for video in labelled)
            rows = {id: row for row, id in enumerate(stored.ids)}
            found = [rows.get(video.id) for video in labelled]
            if all(row is None for row in found):
                raise InvalidRequest(
                    f"no labelled video has one of the {len(rows)} vectors: the first id of the videos is"
                    f" {labelled[0].id!r}, and that of the vectors {next(iter(rows), '')!r}. Give the list that"
                    " `clipserve embed` read"
                )
        positions, chosen, failures = [], [], []
        for position, (video, row) in enumerate(zip(labelled, found, strict=True)):
            if row is None:
                failures.append(
                    Failure(position, video.id, video.video, "no-features", "the file has no vector for this video")
                )
            elif not np.isfinite(stored.vectors[row]).all():
                message = "its features are NaN or infinite"
                failures.append(Failure(position, video.id, video.video, "bad-features", message))
            else:
                positions.append(position)
                chosen.append(row)
        truncated = [bool(stored.truncated[row]) for row in chosen]
        return cls(tuple(labelled), positions, stored.vectors[chosen], failures, [0.0] * len(chosen), truncated)


def require_distinct(named: Iterable[tuple[str, str]]) -> None:
    """Raise InvalidRequest where one id stands for two videos: rows would match the wrong ones. named: (id, video)."""
    videos: dict[str, str] = {}
    for id, video in named:
        if videos.setdefault(id, video) != video:
            raise InvalidRequest(
                f"{videos[id]!r} and {video!r} have the same id, {id!r}, by which labels and vectors match: give each"
                " video an id of its own in the lists, and embed them again"
            )


def list_classes(videos: Sequence[LabelledVideo]) -> tuple[tuple[str, ...], list[int]]:
    """The classes in alphabetical order, and the class index of each video; -1 for a line that names no video.

    Labels that differ in case, blanks and underscores alone are one class, by their most frequent spelling.

    Raises:
        InvalidRequest: a video has several labels.
    """
    several = [video for video in videos if len(video.labels) > 1]
    if several:
        names = ", ".join(repr(video.id) for video in several[:NAMES_IN_MESSAGE])
        raise InvalidRequest(
            f"{len(several)} of {len(videos)} videos have several labels ({names}), but a fit needs exactly one for"
            " each video: give each video its main label, or fit several models"
        )
    spellings: dict[str, Counter[str]] = {}
    for video in videos:
        for label in video.labels:
            spellings.setdefault(normalise(label), Counter())[" ".join(label.split())] += 1
    keys = sorted(spellings)
    places: Mapping[str, int] = {key: place for place, key in enumerate(keys)}
    classes = tuple(spellings[key].most_common(1)[0][0] for key in keys)
    return classes, [places[normalise(video.labels[0])] if video.labels else -1 for video in videos]


def require_enough(
    classes: Sequence[str], truths: Integers, failures: Sequence[Failure], videos: Sequence[LabelledVideo]
) -> None:
    """Raise InvalidRequest unless there are two classes, each with LEAST_VIDEOS videos."""
    if len(classes) < 2:
        raise InvalidRequest(
            f"all {len(videos)} videos have the label {classes[0]!r}, but a fit needs at least two classes: add videos"
            " of something else, with a label such as 'other'"
        )
    counts = np.bincount(truths, minlength=len(classes))
    few = [f"{name!r} has {count}" for name, count in zip(classes, counts, strict=True) if count < LEAST_VIDEOS]
    if few:
        more = ", ..." if len(few) > NAMES_IN_MESSAGE else ""
        message = (
            f"each class needs {LEAST_VIDEOS} videos or more for the cross-validation:"
            f" {', '.join(few[:NAMES_IN_MESSAGE])}{more}. Add videos, or leave these classes out"
        )
        if failures:
            first = failures[0]
            message += f" ({len(failures)} videos were left out, such as {first.id!r}: {first.message})"
        raise InvalidRequest(message)
