"""Joins windows into labelled segments of a video, deterministically.

1. Each window stands for the time around its middle: from half-way to the previous window to half-way to the next. The
   first one also stands for the time from its start on, the last one for the time up to its end.
2. Hysteresis: a segment of a label begins with a window in which the label's score is at least `enter`, and continues
   while the score is at least `leave`. A label that is not among the top_k labels of a window has the score 0 there.
   With overlap=False there is one label at a time: a segment also ends when another label has a higher score of at
   least `enter`. A segment then begins with the label of the highest score.
3. Segments of one label that are at most `max_gap` apart are joined; with overlap=False only if no other is between.
4. Segments shorter than `min_length` are dropped.
5. Step 3 is repeated, because step 4 may have removed a segment between two others.

Scores of a softmax sum to 1. So a label with a score of more than 1 / (top_k + 1) is always among the top_k labels, and
`leave` should not be lower than that: 1/6 for the default top_k of 5.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, NamedTuple

from clipserve.arguments import Argument, CheckedArguments
from clipserve.checks import check_bool, check_seconds, read_float
from clipserve.errors import InvalidRequest
from clipserve.results import ScoredLabel
from clipserve.timeline.window import Window


def check_threshold(name: str, value: object) -> float:
    """Accept a score: more than 0, at most 1."""
    if (score := read_float(value)) is None or not 0 < score <= 1:
        raise InvalidRequest(f"{name} must be more than 0 and at most 1, got {value!r}")
    return score


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(CheckedArguments):
    """How windows are joined into segments."""

    enter: Annotated[
        float, Argument("a segment begins when a label's score is at least this", check_threshold, metavar="SCORE")
    ] = 0.5
    leave: Annotated[
        float | None,
        Argument(
            "a segment ends when the label's score is below this; at most `enter`",
            check_threshold,
            metavar="SCORE",
            default="0.6 x enter",
        ),
    ] = None
    min_length: Annotated[float, Argument("drop segments that are shorter", check_seconds, metavar="SECONDS")] = 0.0
    max_gap: Annotated[
        float,
        Argument("join segments of one label across gaps of at most this length", check_seconds, metavar="SECONDS"),
    ] = 0.0
    overlap: Annotated[bool, Argument("allow segments of several labels at a time", check_bool)] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leave is not None and self.leave > self.enter:
            raise InvalidRequest(f"leave must be at most enter, got enter={self.enter!r}, leave={self.leave!r}")

    @property
    def leave_score(self) -> float:
        """The score below which a segment ends."""
        return 0.6 * self.enter if self.leave is None else self.leave


@dataclass(frozen=True)
class Segment:
    """A part of a video with one label.

    Attributes:
        label: name of the action.
        index: position of the label in the model's list of classes.
        start_seconds, end_seconds: in seconds from the first frame on.
        start_frame, end_frame: the first frame, and the first one after it; between a window's own frames they are
            found by its frame rate.
        score: mean score of the label over its windows.
        windows: how many windows the label has in it.
    """

    label: str
    index: int
    start_seconds: float
    end_seconds: float
    start_frame: int
    end_frame: int
    score: float
    windows: int

    @property
    def length_seconds(self) -> float:
        """How long it is."""
        return self.end_seconds - self.start_seconds

    def __str__(self) -> str:
        return f"{self.start_seconds:g} to {self.end_seconds:g} s: {self.label} {self.score:.2f}"


class _Moment(NamedTuple):
    seconds: float
    frame: int


@dataclass
class _Run:
    """A label over consecutive windows."""

    label: ScoredLabel
    begin: _Moment
    end: _Moment
    scores: list[float]

    def to_segment(self) -> Segment:
        return Segment(
            label=self.label.label,
            index=self.label.index,
            start_seconds=self.begin.seconds,
            end_seconds=self.end.seconds,
            start_frame=self.begin.frame,
            end_frame=self.end.frame,
            score=sum(self.scores) / len(self.scores),
            windows=len(self.scores),
        )


def segments(windows: Iterable[Window], options: SegmentOptions | None = None, **changes: object) -> list[Segment]:
    """Join the windows of one video into segments, by their start; those of one start by their class.

    >>> segments(classifier.timeline("match.mp4"), enter=0.6, min_length=1)

    Args:
        windows: in order, without a gap in their numbers.
        options, changes: `SegmentOptions`, or its fields.

    Raises:
        InvalidRequest: an option is not allowed, or the windows are not in order.
        ClipserveError: taking the windows fails.
    """
    options = _choose(options, changes)
    found = sorted(_find(windows, options), key=_order)
    for step in (
        partial(_join, options=options),
        lambda parts: [part for part in parts if part.length_seconds >= options.min_length],
        partial(_join, options=options),
    ):
        found = step(found)
    return found


def _choose(options: SegmentOptions | None, changes: dict[str, object]) -> SegmentOptions:
    try:
        return replace(options or SegmentOptions(), **changes)  # type: ignore[arg-type]
    except TypeError as exc:
        raise InvalidRequest(f"unknown option of segments: {', '.join(changes)}") from exc


def _order(segment: Segment) -> tuple[float, int]:
    return segment.start_seconds, segment.index


def _find(windows: Iterable[Window], options: SegmentOptions) -> list[Segment]:
    """Step 2: the segments by hysteresis."""
    choose: Callable[[Window, Sequence[int]], dict[int, ScoredLabel]]
    choose = partial(_choose_several if options.overlap else _choose_one, options=options)
    open_runs: dict[int, _Run] = {}
    done: list[_Run] = []
    last: Window | None = None
    for window in windows:
        if last is not None and window.index != last.index + 1:
            raise InvalidRequest(f"window {last.index + 1} is next, got window {window.index}: give all, in order")
        begin = _find_moment(window, window.start_seconds) if last is None else _meet(last, window)
        chosen = choose(window, [*open_runs])
        for run in open_runs.values():
            run.end = begin
        done += [open_runs.pop(index) for index in [*open_runs] if index not in chosen]
        for index, scored in chosen.items():
            run = open_runs.setdefault(index, _Run(scored, begin, begin, []))
            run.scores.append(scored.score)
        last = window
    for run in open_runs.values():
        assert last is not None
        run.end = _find_moment(last, last.end_seconds)
    return [run.to_segment() for run in [*done, *open_runs.values()]]


def _choose_several(window: Window, present: Sequence[int], *, options: SegmentOptions) -> dict[int, ScoredLabel]:
    return {
        scored.index: scored
        for scored in window
        if scored.score >= (options.leave_score if scored.index in present else options.enter)
    }


def _choose_one(window: Window, present: Sequence[int], *, options: SegmentOptions) -> dict[int, ScoredLabel]:
    chosen = window.top if window.top.score >= options.enter else None
    for scored in window:
        if scored.index in present and scored.score >= options.leave_score:
            # At the same score the present one stays.
            chosen = chosen if chosen is not None and chosen.score > scored.score else scored
    return {} if chosen is None else {chosen.index: chosen}


def _join(found: list[Segment], *, options: SegmentOptions) -> list[Segment]:
    """Steps 3 and 5."""
    joined: list[Segment] = []
    latest: dict[int, int] = {}  # by label: where its last segment is in `joined`
    for segment in found:
        place = latest.get(segment.index) if options.overlap else len(joined) - 1
        before = joined[place] if place is not None and place >= 0 else None
        if (
            place is not None
            and before is not None
            and before.index == segment.index
            and segment.start_seconds - before.end_seconds <= options.max_gap
        ):
            windows = before.windows + segment.windows
            joined[place] = replace(
                before,
                end_seconds=segment.end_seconds,
                end_frame=segment.end_frame,
                score=(before.score * before.windows + segment.score * segment.windows) / windows,
                windows=windows,
            )
        else:
            latest[segment.index] = len(joined)
            joined.append(segment)
    return joined


def _meet(last: Window, window: Window) -> _Moment:
    """Half-way between the middles of two windows."""
    seconds = (last.middle_seconds + window.middle_seconds) / 2
    # Where windows do not touch, the moment is in neither: the next one's frames are as good as the last one's.
    return _find_moment(last if seconds <= last.end_seconds else window, seconds)


def _find_moment(window: Window, seconds: float) -> _Moment:
    """The time and its frame, at the window's own frame rate."""
    share = (seconds - window.start_seconds) / (window.end_seconds - window.start_seconds)
    frame = window.start_frame + round(share * (window.end_frame - window.start_frame))
    return _Moment(seconds, max(frame, 0))
