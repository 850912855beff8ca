"""The names of a model's classes, one a line, in the order of its scores."""

from collections.abc import Sequence
from pathlib import Path
from unicodedata import category

from clipserve.evaluation.ground_truth import normalise
from clipserve_export.errors import LabelsError
from clipserve_export.families.adapter import PACKAGE
from clipserve_export.specs import ModelSpec

NOT_IN_LABELS = {"Cc", "Zl", "Zp"}  # Unicode's categories of control characters, and of ends of lines and paragraphs


def published_labels(spec: ModelSpec) -> Path:
    """The label file of the published weights, for a model that has one."""
    return PACKAGE / spec.labels


def read_labels(path: Path) -> list[str]:
    """The lines of a label file. Raises LabelsError, also for a label that comes twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(f"the label file {path} is not UTF-8 ({error}): save it as UTF-8") from error
    except OSError as error:
        raise LabelsError(f"the label file {path} cannot be read: {error.strerror or error}") from error
    labels = [line.strip() for line in text.split("\n")]
    while labels and not labels[-1]:
        labels.pop()
    require_distinct(labels, path, of="line", start=1)
    return labels


def require_distinct(labels: Sequence[str], source: Path | str, *, of: str, start: int) -> None:
    """Raise LabelsError unless each label is a name of its own. `source` has them by number, from `start` on."""
    if "" in labels:
        raise LabelsError(f"{source}, {of} {labels.index('') + start}: a label is empty")
    for number, label in enumerate(labels, start):
        if not NOT_IN_LABELS.isdisjoint(map(category, label)):
            raise LabelsError(
                f"{source}, {of} {number}: the label {label[:50]!r} has a tab, or another control character: a label is"
                " a name alone, without its number"
            )
    first: dict[str, int] = {}
    for number, label in enumerate(labels, start):
        if (earlier := first.setdefault(normalise(label), number)) != number:
            raise LabelsError(
                f"{source}, {of} {number}: the label {label!r} equals that of {of} {earlier}"
                f" ({labels[earlier - start]!r}); each class needs another name, and names that differ only in blanks,"
                " underscores or case are equal"
            )


def labels_for(spec: ModelSpec, given: Sequence[str] | None, published: Sequence[str] | None) -> list[str]:
    """The labels for the classes of `spec`: those of a label file, `given`, or those that came with its weights.

    Raises LabelsError for another number, or where there are none.
    """
    if given is None and published is None:
        raise LabelsError(
            f"{spec.name} has {spec.contract.classes} classes and no names for them: give a file by --labels, one name"
            " a line, in the order of the scores"
        )
    labels = [" ".join(label.split()) for label in published or ()] if given is None else list(given)
    if given is None:
        require_distinct(labels, f"the labels of {spec.name} (give your own by --labels)", of="class", start=0)
    if len(labels) != spec.contract.classes:
        whose = f"the published list of {spec.name} (give your own by --labels)" if given is None else "--labels"
        raise LabelsError(f"the weights have {spec.contract.classes} classes, but {whose} has {len(labels)} labels")
    return labels
