"""True labels as people write them, and the classes of a model that they mean."""

import contextlib
import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SUGGESTIONS = 3
LABELS_IN_MESSAGE = 10


def split_label(text: str) -> tuple[str, ...]:
    """The true labels of one video: `archery`, `archery|bowling`, or a JSON list `["archery", "bowling"]`."""
    parts: Iterable[object] = text.split("|")
    if text.lstrip().startswith("["):
        with contextlib.suppress(ValueError):  # a label may begin with a bracket
            parts = json.loads(text)
    labels = (str(part).strip() for part in parts)
    return tuple(dict.fromkeys(label for label in labels if label))


def normalise(label: str) -> str:
    """One form for all the ways to write a label: file names have underscores where labels have spaces."""
    return " ".join(label.replace("_", " ").split()).casefold()


@dataclass(frozen=True)
class ClassNames:
    """The classes of a model, by index, and how to find one from a label."""

    names: tuple[str, ...]
    _exact: dict[str, int] = field(init=False, repr=False, compare=False)
    _normalised: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Reversed, so that the first of two equal names wins. object: the class is frozen.
        pairs = [(name, index) for index, name in enumerate(self.names)][::-1]
        object.__setattr__(self, "_exact", dict(pairs))
        object.__setattr__(self, "_normalised", {normalise(name): index for name, index in pairs})

    def find(self, label: str) -> int | None:
        """Index of the class, or None. Underscores match spaces, and case does not count."""
        if label in self._exact:
            return self._exact[label]
        return self._normalised.get(normalise(label))

    def suggest(self, label: str) -> list[str]:
        """Names of classes that look like `label`, best first."""
        near = difflib.get_close_matches(normalise(label), self._normalised, n=SUGGESTIONS)
        return [self.names[self._normalised[name]] for name in near]

    def locate(self, labels: Sequence[str], unknown: list[str]) -> tuple[int, ...]:
        """Indices of `labels`. One that is no class gets a negative number, which no prediction has, from `unknown`.

        `unknown` grows by the labels that are new to it.
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
    """One sentence that names the labels the model does not know, each with those it may have meant."""
    parts = []
    for label in unknown[:LABELS_IN_MESSAGE]:
        near = " or ".join(repr(name) for name in classes.suggest(label))
        parts.append(f"{label!r} (did you mean {near}?)" if near else repr(label))
    more = f" and {len(unknown) - LABELS_IN_MESSAGE} more" if len(unknown) > LABELS_IN_MESSAGE else ""
    what = "1 label is" if len(unknown) == 1 else f"{len(unknown)} labels are"
    return f"{what} none of the {len(classes.names)} classes of model {model!r}: {', '.join(parts)}{more}"
