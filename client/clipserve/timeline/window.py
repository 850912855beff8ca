"""One window of a video: its time and its labels, and what is known of the video as a whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clipserve.results import ScoredLabel, check_labels, list_best


@dataclass(frozen=True, repr=False)
class Window:
    """The best labels of one window of a video, best first. Iterates over them.

    `classify(video, start=window.start_seconds, end=window.end_seconds)` gives the same scores.

    Attributes:
        index: number of the window in its video, from 0.
        start_seconds, end_seconds: the part of the video, in seconds from its first frame on.
        start_frame, end_frame: its frames: the first one, and the first one after it.
        labels: top_k labels, or all of them if the model has fewer.
        scores: float32 array [K], the scores of all classes; None if the window was read from a file without them.
        features: float32 array [D], the embedding ahead of the projection, if requested.
        report: which frames the model saw, and how they were chosen, if requested.
    """

    index: int
    start_seconds: float
    end_seconds: float
    start_frame: int
    end_frame: int
    labels: tuple[ScoredLabel, ...]
    # compare=False: arrays do not compare to one truth value, and neither arrays nor dicts hash.
    scores: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    features: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    report: Mapping[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"index must be a position from 0 on, got {self.index}")
        if not 0 <= self.start_seconds < self.end_seconds < float("inf"):
            raise ValueError(f"a window must end after its start, got {self.start_seconds} to {self.end_seconds} s")
        if not 0 <= self.start_frame <= self.end_frame:
            raise ValueError(f"frames must be numbers from 0 on, got {self.start_frame} to {self.end_frame}")
        check_labels(self.labels, "a window")

    @property
    def top(self) -> ScoredLabel:
        """The best label."""
        return self.labels[0]

    @property
    def middle_seconds(self) -> float:
        """The time half-way between start and end."""
        return (self.start_seconds + self.end_seconds) / 2

    def __iter__(self) -> Iterator[ScoredLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Window({self.index}, {self.start_seconds:g} to {self.end_seconds:g} s: {list_best(self.labels)})"


@dataclass(frozen=True)
class VideoFacts:
    """What the server knows of a video while it sends windows.

    Attributes:
        duration_seconds: length of the video; None if the server does not know it yet.
        windows_total: how many windows the video has; None if the server does not know it yet.
        truncated: whether bytes of the video are missing or damaged, as far as the server has read.
        video: codec, container, width, height, fps and so on, as the report of `classify` has them.
    """

    duration_seconds: float | None = None
    windows_total: int | None = None
    truncated: bool | None = None
    video: Mapping[str, Any] = field(default_factory=dict, compare=False)
