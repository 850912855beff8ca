"""The names of a model's classes, one a line, in the order of its scores."""

from collections.abc import Sequence
from pathlib import Path

from clipserve.evaluation.ground_truth import normalise
from clipserve_export.errors import LabelsError
from clipserve_export.families.adapter import PACKAGE
from clipserve_export.specs import ModelSpec


def published_labels(spec: ModelSpec) -> Path:
    """The label file of the published weights, for a model that has one."""
    return PACKAGE / spec.labels


def read_labels(path: Path) -> list[str]:
    """The lines of a label file. Raises LabelsError, also for a label that comes twice."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"the label file {path} cannot be read: {error}") from error
    labels = [line.strip() for line in lines]
    while labels and not labels[-1]:
        labels.pop()
    if "" in labels:
        raise LabelsError(f"{path}, line {labels.index('') + 1}: a label is empty")
    first: dict[str, int] = {}
    for number, label in enumerate(labels, 1):
        if (earlier := first.setdefault(normalise(label), number)) != number:
            raise LabelsError(
                f"{path}, line {number}: the label {label!r} is that of line {earlier} already"
                f" ({labels[earlier - 1]!r}); each class needs a name of its own, and blanks, underscores and case do"
                " not tell names apart"
            )
    return labels


def labels_for(spec: ModelSpec, path: Path | None, published: Sequence[str] | None) -> list[str]:
    """The labels for the classes of `spec`, from `path` or those that came with its weights.

    Raises LabelsError for another number, or where there are none.
    """
    if path is None and published is None:
        raise LabelsError(
            f"{spec.name} has {spec.contract.classes} classes and no names for them: give a file by --labels, one name"
            " a line, in the order of the scores"
        )
    labels = read_labels(path) if path else list(published or ())
    if len(labels) != spec.contract.classes:
        whose = path or f"the published list of {spec.name} (give your own by --labels)"
        raise LabelsError(f"the weights have {spec.contract.classes} classes, but {whose} has {len(labels)} labels")
    return labels
