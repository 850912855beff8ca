"""The true labels of videos, as people write them, and the classes of a model that these labels name."""

import contextlib
import difflib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clipserve.errors import InvalidRequest
from clipserve.sources.entries import Entry

SUGGESTIONS = 3
LABELS_IN_MESSAGE = 10
VIDEOS_IN_MESSAGE = 5


@dataclass(frozen=True)
class LabelledVideo:
    """One video of a source: its id, its path or address, and its true labels as the source writes them."""

    id: str
    video: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelledSource:
    """Videos with true labels: the entries to send and what the source says about each, in the same order."""

    entries: tuple[Entry, ...]
    videos: tuple[LabelledVideo, ...]

    @classmethod
    def read(cls, entries: Iterable[Entry]) -> "LabelledSource":
        """Read the true labels of all entries.

        Raises:
            InvalidRequest: there are no videos, or some have no label; names these videos.
        """
        entries = tuple(entries)
        if not entries:
            raise InvalidRequest("this source has no video, so there is nothing to evaluate")
        videos = [LabelledVideo(entry.spelt_id, entry.name, split_labels(entry.spelt_label or "")) for entry in entries]
        # A line that names no video needs no label: it becomes a failure with a message of its own.
        unlabelled = [
            video
            for video, entry in zip(videos, entries, strict=True)
            if not video.labels and not isinstance(entry.video, Exception)
        ]
        if len(unlabelled) == len(videos):
            raise InvalidRequest(
                f"none of {len(videos)} videos has a true label to compare with: give a CSV or JSON lines file, or a"
                " data frame, with the columns path and label, or a folder with a folder for each class"
            )
        if unlabelled:
            names = ", ".join(repr(video.id) for video in unlabelled[:VIDEOS_IN_MESSAGE])
            more = " ..." if len(unlabelled) > VIDEOS_IN_MESSAGE else ""
            raise InvalidRequest(
                f"{len(unlabelled)} of {len(videos)} videos have no true label: {names}{more}. Fill in their column"
                " `label`, or remove them from the source."
            )
        return cls(entries, tuple(videos))


def split_labels(text: str) -> tuple[str, ...]:
    """The true labels of one video: `archery`, `archery|bowling`, or a JSON list `["archery", "bowling"]`."""
    parts: Iterable[object] = text.split("|")
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a label may begin with a bracket
            parts = json.loads(text)
    labels = (str(part).strip() for part in parts)
    return tuple(dict.fromkeys(label for label in labels if label))


def write_label(label: str) -> str:
    """The text that `split_labels` reads as this label alone: `a|b` needs a JSON list."""
    return label if split_labels(label) == (label,) else json.dumps([label], ensure_ascii=False)


def normalise(label: str) -> str:
    """The label without differences that mean nothing: case, repeated blanks, underscores in the place of blanks, and
    whether an accent is a letter of its own, as in the names of folders from a Mac.
    """
    return unicodedata.normalize("NFC", " ".join(label.replace("_", " ").split()).casefold())


@dataclass(frozen=True)
class ClassNames:
    """The names of a model's classes, by index."""

    names: tuple[str, ...]
    _exact: dict[str, int] = field(init=False, repr=False, compare=False)
    _normalised: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Reversed, so that the first of two equal names wins. object: the class is frozen.
        pairs = [(name, index) for index, name in enumerate(self.names)][::-1]
        object.__setattr__(self, "_exact", dict(pairs))
        object.__setattr__(self, "_normalised", {normalise(name): index for name, index in pairs})

    def find(self, label: str) -> int | None:
        """Index of the class that `label` names, or None. Underscores match spaces, and case does not count."""
        if label in self._exact:
            return self._exact[label]
        return self._normalised.get(normalise(label))

    def suggest(self, label: str) -> list[str]:
        """Names of the classes that are most similar to `label`, best first."""
        near = difflib.get_close_matches(normalise(label), self._normalised, n=SUGGESTIONS)
        return [self.names[self._normalised[name]] for name in near]

    def find_all(self, labels: Sequence[str], unknown: list[str]) -> tuple[int, ...]:
        """Class indices of `labels`.

        A label that names no class gets a negative index, which no prediction has: -1 minus its position in `unknown`.
        New ones are appended to `unknown`.
        """
        indices = []
        for label in labels:
            index = self.find(label)
            if index is None:
                if label not in unknown:
                    unknown.append(label)
                index = -1 - unknown.index(label)
            indices.append(index)
        return tuple(dict.fromkeys(indices))


def describe_unknown(unknown: Sequence[str], classes: ClassNames, model: str) -> str:
    """A sentence that lists labels which name no class of the model, each with the classes it may mean."""
    parts = []
    for label in unknown[:LABELS_IN_MESSAGE]:
        near = " or ".join(repr(name) for name in classes.suggest(label))
        parts.append(f"{label!r} (did you mean {near}?)" if near else repr(label))
    more = f" and {len(unknown) - LABELS_IN_MESSAGE} more" if len(unknown) > LABELS_IN_MESSAGE else ""
    what = "1 label is" if len(unknown) == 1 else f"{len(unknown)} labels are"
    return f"{what} not among the {len(classes.names)} classes of model {model!r}: {', '.join(parts)}{more}"
