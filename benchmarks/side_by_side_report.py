"""The results of side_by_side.py: summaries, a page of Markdown, a CSV with every turn, a plot."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternatives.contestants import OURS, REFERENCE, Contestant, Setting, describe
from benchmarks.harness.results import BLUE, GREY, new_figure, save_figure, table, write_csv
from benchmarks.harness.results import write_page as write_lines
from benchmarks.harness.rounds import Samples

# The project's goals: at least so many times the videos a second, on two cores with x3d_m.
GOALS = {"codelab": 6.0, "codelab-frames": 6.0, "codelab-five": 3.0, "pool": 2.0, "ensemble": 2.0, "litserve": 2.0}
MUCH = 0.05  # of the processor, taken by other programs


@dataclass(frozen=True)
class Turn:
    """One turn of one contestant. Durations in seconds; shares of all cores over the time of the turn."""

    key: str
    round: int
    seconds: float
    processor_seconds: float
    peak_bytes: int  # 0 where the memory was not watched
    others_share: float
    idle_share: float
    answers: tuple[Mapping[str, Any], ...]

    @property
    def answered(self) -> list[Mapping[str, Any]]:
        """Answers without an error."""
        return [answer for answer in self.answers if not answer["error"]]

    @property
    def rate(self) -> float:
        """Videos answered a second."""
        return len(self.answered) / self.seconds

    @property
    def cost(self) -> float:
        """Processor seconds for each video answered."""
        return self.processor_seconds / max(len(self.answered), 1)

    @property
    def failed(self) -> int:
        """The number of videos without an answer."""
        return len(self.answers) - len(self.answered)

    def __str__(self) -> str:
        text = f"{self.rate:.2f} videos/s, {self.cost:.2f} processor seconds a video"
        if self.failed:
            text += f", {self.failed} FAILED: {next(a['error'] for a in self.answers if a['error'])}"
        return text + (f", other programs took {self.others_share:.0%}" if self.others_share > MUCH else "")


@dataclass(frozen=True)
class Circumstances:
    """What the numbers were measured under."""

    model: str
    weights: str
    machine: str
    precision: str  # that clipserve chose
    load: float  # load average of the minute before
    videos: tuple[str, ...]
    left_out: Mapping[str, str]  # title -> reason
    has_goals: bool  # whether GOALS are about this model


@dataclass(frozen=True)
class Summary:
    """A contestant over all rounds that count. Latencies in seconds; ratios are clipserve's advantage, by round."""

    contestant: Contestant
    setting: Setting
    rate: float
    p50: float
    p95: float
    cost: float
    peak_bytes: int
    rate_ratios: Samples
    cost_ratios: Samples
    same_top: int
    compared: int
    furthest: float  # largest difference of a score from the reference, over the reference's best score
    failed: int


def summarise(contestant: Contestant, setting: Setting, turns: Sequence[Turn]) -> Summary:
    """Summarise the turns of one contestant. `turns` are those of all."""
    own = [turn for turn in turns if turn.key == contestant.key]
    counted = [turn for turn in own if turn.round] or own
    ours = {turn.round: turn for turn in turns if turn.key == OURS}
    latencies = [answer["seconds"] for turn in counted for answer in turn.answered] or [float("nan")]
    pairs = [(ours[turn.round], turn) for turn in counted if turn.round in ours]
    expected = {a["video"]: read_scores(a) for turn in turns if turn.key == REFERENCE for a in turn.answered}
    found = {a["video"]: read_scores(a) for turn in own for a in turn.answered}
    both = [(found[video], expected[video]) for video in expected if video in found]
    return Summary(
        contestant=contestant,
        setting=setting,
        rate=statistics.median(turn.rate for turn in counted),
        p50=statistics.median(latencies),
        p95=float(np.percentile(latencies, 95)),
        cost=statistics.median(turn.cost for turn in counted),
        peak_bytes=max(turn.peak_bytes for turn in own),
        rate_ratios=Samples(tuple(us.rate / turn.rate if turn.rate else float("inf") for us, turn in pairs)),
        cost_ratios=Samples(tuple(turn.cost / us.cost for us, turn in pairs)),
        same_top=sum(best(scores) == best(wanted) for scores, wanted in both),
        compared=len(both),
        furthest=max((distance(scores, wanted) for scores, wanted in both), default=float("nan")),
        failed=sum(turn.failed for turn in counted),
    )


def read_scores(answer: Mapping[str, Any]) -> dict[int, float]:
    """Scores by class number, which JSON turned into text."""
    return {int(index): score for index, score in answer["scores"].items()}


def best(scores: Mapping[int, float]) -> int:
    """The class with the highest score."""
    return max(scores, key=scores.__getitem__)


def distance(scores: Mapping[int, float], wanted: Mapping[int, float]) -> float:
    """The largest difference of a score, over the highest score wanted."""
    return max(abs(score - wanted[index]) for index, score in scores.items()) / max(wanted.values())


def find_warnings(turns: Sequence[Turn], circumstances: Circumstances) -> list[str]:
    """What limits the trust in the numbers."""
    counted = [turn for turn in turns if turn.round]
    disturbed = [turn.others_share for turn in counted if turn.others_share > MUCH]
    awake = [turn.idle_share for turn in counted if turn.idle_share > MUCH]
    warnings = [f"{title} was left out: {reason}" for title, reason in circumstances.left_out.items()]
    if disturbed:
        warnings.append(
            f"other programs took more than {MUCH:.0%} of the processor in {len(disturbed)} of {len(counted)} turns"
            f" (most: {max(disturbed):.0%})"
        )
    if awake:
        warnings.append(f"idle contestants took up to {max(awake):.0%} of the processor")
    return warnings


def write_page(summaries: Sequence[Summary], turns: Sequence[Turn], circumstances: Circumstances, path: Path) -> None:
    """Write and print the page."""
    rounds = max(turn.round for turn in turns)
    counted = [turn for turn in turns if turn.round] or list(turns)
    numbers = [
        [
            s.contestant.title + (f" ({s.failed} failed)" if s.failed else ""),
            f"{s.rate:.2f}",
            f"{s.p50:.2f}",
            f"{s.p95:.2f}",
            f"{s.cost:.3f}",
            f"{s.peak_bytes / 2**20:.0f}",
            f"{s.same_top} of {s.compared}",
            f"{s.furthest:.1%}",
        ]
        for s in summaries
    ]
    goals = GOALS if circumstances.has_goals else {}
    ratios = [
        [s.contestant.title, str(s.rate_ratios), goals.get(s.contestant.key, ""), str(s.cost_ratios)]
        for s in summaries
        if s.contestant.key != OURS and not s.contestant.process
    ]
    files = Counter(circumstances.videos)
    lines = [
        f"{circumstances.model}, {circumstances.weights}; {circumstances.machine}",
        "",
        f"The same {len(circumstances.videos)} videos and weights for all, in turns, {rounds} rounds, {len(counted)}"
        " turns. While one contestant works, the processes of the others are idle.",
        f"Load average at the start {circumstances.load:.2f}; other programs took at most"
        f" {max(turn.others_share for turn in counted):.1%} of the processor in a turn, idle contestants"
        f" {max(turn.idle_share for turn in counted):.1%}.",
        f"clipserve runs the network by OpenVINO, in {circumstances.precision} by its own choice; the others compute"
        " in fp32. All decode with the same FFmpeg. The plain ensemble runs in clipserve's embedded Triton, with its"
        " substitute for the ONNX Runtime backend.",
        *(f"\n**Warning:** {warning}." for warning in find_warnings(turns, circumstances)),
        "",
        *table(
            [
                *("", "videos/s", "p50, s", "p95, s", "processor s a video", "peak memory, MiB"),
                *("same best class", "furthest score"),
            ],
            numbers,
        ),
        "",
        "Times and memory are those of all processes of a contestant: client, server and workers. Memory is the peak of"
        " their proportional set sizes, in a round of its own. Scores are compared with the codelab's way; differences"
        " are over its best score.",
        "",
        f"clipserve's advantage over the others, medians of {rounds} rounds (lowest to highest):",
        "",
        *table(["against", "videos/s, times", "goal on two cores", "processor s a video, times"], ratios),
        "",
        "Settings, the best in videos/s of those in benchmarks/alternatives/contestants.py:",
        "",
        *(f"* {s.contestant.title}: {describe(s.setting)}" for s in summaries),
        "",
        "Videos: " + ", ".join(f"{times} x {name}" if times > 1 else name for name, times in files.items()),
    ]
    write_lines(path, lines)


def write_turns(turns: Sequence[Turn], path: Path) -> None:
    """Write every turn as CSV."""
    rows = []
    for turn in turns:
        latencies = [answer["seconds"] for answer in turn.answered]
        rows.append(
            {
                "contestant": turn.key,
                "round": turn.round,
                "videos": len(turn.answers),
                "failed": turn.failed,
                "seconds": f"{turn.seconds:.2f}",
                "videos_per_second": f"{turn.rate:.3f}",
                "median_latency_seconds": f"{statistics.median(latencies):.3f}" if latencies else "",
                "processor_seconds_per_video": f"{turn.cost:.3f}",
                "peak_mebibytes": f"{turn.peak_bytes / 2**20:.0f}" if turn.peak_bytes else "",
                "others_share": f"{turn.others_share:.3f}",
                "idle_share": f"{turn.idle_share:.3f}",
            }
        )
    write_csv(path, rows)


def draw(summaries: Sequence[Summary], model: str, path: Path) -> None:
    """Bars: videos a second, processor seconds a video, p95, memory."""
    panels = {
        "videos a second": [summary.rate for summary in summaries],
        "processor seconds a video": [summary.cost for summary in summaries],
        "latency, 95th percentile, s": [summary.p95 for summary in summaries],
        "peak memory, GiB": [summary.peak_bytes / 2**30 for summary in summaries],
    }
    titles = [summary.contestant.title for summary in summaries]
    colours = [BLUE if summary.contestant.key.startswith(OURS) else GREY for summary in summaries]
    figure, axes = new_figure(len(panels), figsize=(13, 0.42 * len(titles) + 1.4), sharey=True)
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        bars = axis.barh(titles, values, color=colours, height=0.7)
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlim(0, max(values) * 1.22 or 1)
    axes[0].invert_yaxis()
    figure.suptitle(f"{model}: the same videos, the same weights, the same machine", x=0.01, ha="left", weight="bold")
    save_figure(figure, path)
