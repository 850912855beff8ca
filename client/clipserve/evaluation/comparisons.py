"""Models or settings side by side, on the same videos."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipserve.evaluation.evaluations import Evaluation, write_text
from clipserve.evaluation.extra import load
from clipserve.evaluation.figures import MEANINGS, Figure
from clipserve.evaluation.intervals import Interval, mcnemar_p, paired_interval
from clipserve.tables.lines import write_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True)
class Difference:
    """One figure of an evaluation less that of the baseline, over the videos that both answered.

    Attributes:
        metric: a key of MEANINGS.
        value: the difference; positive where the evaluation has more.
        interval: 95 %, paired; None for fewer than two videos.
    """

    metric: str
    value: float
    interval: Interval | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and 0.0 not in self.interval

    @property
    def is_better(self) -> bool:
        return (self.value > 0) == MEANINGS[self.metric].more_is_better

    def __str__(self) -> str:
        if MEANINGS[self.metric].is_share:
            return f"{100 * self.value:+.1f}"
        return f"{self.value:+.3f}"

    def format_interval(self) -> str:
        if self.interval is None:
            return ""
        scale, digits = (100, 1) if MEANINGS[self.metric].is_share else (1, 3)
        return f"{scale * self.interval.low:+.{digits}f} to {scale * self.interval.high:+.{digits}f}"


@dataclass(frozen=True)
class Contrast:
    """An evaluation against the baseline.

    Attributes:
        name: of the evaluation.
        videos: how many both answered; everything here is about these.
        differences: of each figure that is a mean over videos.
        won, lost: videos whose top label is right here and wrong in the baseline, and the reverse.
        p: of McNemar's exact test that both are right equally often. Not corrected for many contrasts.
    """

    name: str
    videos: int
    differences: tuple[Difference, ...]
    won: int
    lost: int
    p: float

    def __getitem__(self, metric: str) -> Difference:
        return next(difference for difference in self.differences if difference.metric == metric)


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Evaluations of the same videos, by name; the first one is the baseline.

    Raises:
        ValueError: there are fewer than two, or they are not about the same videos.
    """

    evaluations: Mapping[str, Evaluation]

    def __post_init__(self) -> None:
        if len(self.evaluations) < 2:
            raise ValueError(f"a comparison takes two evaluations or more, got {len(self.evaluations)}")
        videos = {tuple((video.id, video.labels) for video in one.videos) for one in self.evaluations.values()}
        if len(videos) > 1:
            raise ValueError(
                "evaluations are compared on the same videos with the same labels in the same order;"
                f" {', '.join(self.evaluations)} are not: evaluate them from one source"
            )

    @property
    def baseline(self) -> str:
        """Name of the evaluation that the others are held against."""
        return next(iter(self.evaluations))

    @property
    def failed(self) -> bool:
        """Whether any video has no answer from any of them."""
        return any(one.failures for one in self.evaluations.values())

    @property
    def metrics(self) -> dict[str, list[Figure | None]]:
        """For each metric the figures of all evaluations in order; None where nothing was answered."""
        return {name: [one.figures.get(name) for one in self.evaluations.values()] for name in MEANINGS}

    @cached_property
    def contrasts(self) -> Mapping[str, Contrast]:
        """Each evaluation but the first against the first, by name."""
        first, *others = self.evaluations.items()
        return {name: contrast(name, one, first[1]) for name, one in others}

    def __getitem__(self, name: str) -> Evaluation:
        return self.evaluations[name]

    def to_json(self, path: str | Path | None = None) -> str:
        """Every evaluation and contrast as a JSON object, also written to `path` if there is one."""
        from clipserve.evaluation.documents import describe_comparison

        return write_text(write_json(describe_comparison(self), indent=2) + "\n", path)

    def to_html(self, path: str | Path | None = None) -> str:
        """A page that needs nothing but itself, also written to `path` if there is one."""
        from clipserve.evaluation.pages import render_comparison

        return write_text(render_comparison(self), path)

    def show(self, console: "Console | None" = None) -> None:
        """Print the tables to the terminal. Raises InvalidRequest if rich is not installed."""
        (console or load("rich.console").Console()).print(self)

    def __rich__(self) -> "RenderableType":
        from clipserve.evaluation.tables import tabulate_comparison

        return tabulate_comparison(self)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(map(repr, self.evaluations.values()))})"


def contrast(name: str, one: Evaluation, baseline: Evaluation) -> Contrast:
    """Hold `one` against `baseline`, on the videos that both answered."""
    _, rows, base_rows = np.intersect1d(one.positions, baseline.positions, assume_unique=True, return_indices=True)
    if not rows.size:
        return Contrast(name, 0, (), 0, 0, 1.0)
    differences = []
    for metric, values in one.per_video.items():
        ours, theirs = values[rows], baseline.per_video[metric][base_rows]
        differences.append(Difference(metric, float(np.mean(ours - theirs)), paired_interval(ours, theirs)))
    right, base_right = one.correct[rows], baseline.correct[base_rows]
    return Contrast(
        name=name,
        videos=int(rows.size),
        differences=tuple(sorted(differences, key=lambda difference: list(MEANINGS).index(difference.metric))),
        won=int(np.sum(right & ~base_right)),
        lost=int(np.sum(~right & base_right)),
        p=mcnemar_p(right, base_right),
    )
