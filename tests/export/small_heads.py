"""Heads with random weights for the features of `motion`, and their publication."""

from pathlib import Path

import numpy as np

from clipserve.fitting import Head
from clipserve_export.own.fitted import find_trunk, publish_head

D = 192  # features of `motion`


def make_head(classes: int = 3, *, seed: int = 0, size: int = D) -> Head:
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(classes, size)) * 3, rng.normal(size=classes)
    return Head(tuple("abcdefgh"[:classes]), weights.astype(np.float32), bias.astype(np.float32))


def publish(repository: Path, head: Head, *, on: str = "motion", name: str = "mine", **facts: object) -> Path:
    """Publish a head. Returns the model's file."""
    trunk = find_trunk(repository, on, name=name)
    record = publish_head(trunk, head, name, **facts)  # type: ignore[arg-type]
    return repository / f"{name}_net" / str(record.version) / trunk.form.filename
