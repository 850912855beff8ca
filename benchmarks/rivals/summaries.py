"""What the slices say together: rates, latencies, costs, ratios, agreement."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rivals.lineup import REFERENCE, Contestant, Setting
from rivals.rounds import Slice


@dataclass(frozen=True)
class Summary:
    """A contestant over all rounds that count. Latencies in seconds; ratios are clipserve's advantage, by round."""

    contestant: Contestant
    setting: Setting
    rate: float
    median_latency: float
    late_latency: float  # the 95th percentile
    cost: float
    peak_bytes: int
    rate_ratios: tuple[float, ...]
    cost_ratios: tuple[float, ...]
    same_top: int
    compared: int
    furthest: float  # the largest difference of a score from the reference, as a part of the reference's best score
    failed: int


def summarise(contestant: Contestant, setting: Setting, slices: Sequence[Slice], ours: str) -> Summary:
    """Put the slices of one contestant together. `slices` has those of all."""
    own = [turn for turn in slices if turn.key == contestant.key]
    counted = [turn for turn in own if turn.round] or own
    by_round = {turn.round: turn for turn in slices if turn.key == ours}
    latencies = [answer["seconds"] for turn in counted for answer in turn.answered] or [float("nan")]
    pairs = [(by_round[turn.round], turn) for turn in counted if turn.round in by_round]
    expected = {a["video"]: read_scores(a) for turn in slices if turn.key == REFERENCE for a in turn.answered}
    found = {a["video"]: read_scores(a) for turn in own for a in turn.answered}
    both = [(found[video], expected[video]) for video in expected if video in found]
    return Summary(
        contestant=contestant,
        setting=setting,
        rate=statistics.median(turn.rate for turn in counted),
        median_latency=statistics.median(latencies),
        late_latency=float(np.percentile(latencies, 95)),
        cost=statistics.median(turn.cost for turn in counted),
        peak_bytes=max(turn.peak_bytes for turn in own),
        rate_ratios=tuple(us.rate / turn.rate if turn.rate else float("inf") for us, turn in pairs),
        cost_ratios=tuple(turn.cost / us.cost for us, turn in pairs),
        same_top=sum(best(scores) == best(wanted) for scores, wanted in both),
        compared=len(both),
        furthest=max((distance(scores, wanted) for scores, wanted in both), default=float("nan")),
        failed=sum(len(turn.answers) - len(turn.answered) for turn in counted),
    )


def read_scores(answer: Mapping[str, Any]) -> dict[int, float]:
    """By class number; JSON made text of the numbers."""
    return {int(index): score for index, score in answer["scores"].items()}


def best(scores: Mapping[int, float]) -> int:
    """The class with the highest score."""
    return max(scores, key=scores.__getitem__)


def distance(scores: Mapping[int, float], wanted: Mapping[int, float]) -> float:
    """The largest difference among the classes given, over the highest score wanted."""
    return max(abs(score - wanted[index]) for index, score in scores.items()) / max(wanted.values())
