"""The results on paper: a page of Markdown, a CSV with every slice, a picture."""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rivals.lineup import OURS, describe
from rivals.rounds import Slice
from rivals.summaries import Summary

# At least this many times the videos a second is what the project wants, on two cores with x3d_m.
WANTED = {"codelab": 6.0, "codelab-frames": 6.0, "codelab-five": 3.0, "pool": 2.0, "ensemble": 2.0, "litserve": 2.0}
MUCH = 0.05  # of the processor, taken by others
COLUMNS = (
    *("contestant", "round", "videos", "failed", "seconds", "videos_per_second", "median_latency_seconds"),
    *("processor_seconds_per_video", "peak_mebibytes", "others_share", "idle_share"),
)
BLUE, GREY = "#2f6fde", "#8a8f98"


@dataclass(frozen=True)
class Circumstances:
    """What the numbers were taken under."""

    model: str
    weights: str
    machine: str
    precision: str  # that clipserve chose
    load: float  # average of the minute before
    videos: tuple[str, ...]
    left_out: tuple[str, ...]
    is_claim: bool  # whether the ratios in WANTED are about this model


def find_warnings(slices: Sequence[Slice], circumstances: Circumstances) -> list[str]:
    """What a reader should know before believing."""
    counted = [turn for turn in slices if turn.round]
    disturbed = [turn for turn in counted if turn.others_share > MUCH]
    awake = [turn for turn in counted if turn.idle_share > MUCH]
    warnings = [
        f"{title} was left out: {reason}" for title, _, reason in (x.partition(": ") for x in circumstances.left_out)
    ]
    if disturbed:
        most = max(turn.others_share for turn in disturbed)
        warnings.append(
            f"others took more than {MUCH:.0%} of the processor in {len(disturbed)} of {len(counted)} slices"
            f" (most: {most:.0%})"
        )
    if awake:
        most = max(turn.idle_share for turn in awake)
        warnings.append(f"contestants that should have stood idle took up to {most:.0%} of the processor")
    return warnings


def spread(ratios: Sequence[float]) -> str:
    """Median and range."""
    if not ratios:
        return ""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def write_page(
    summaries: Sequence[Summary], slices: Sequence[Slice], circumstances: Circumstances, path: Path
) -> list[str]:
    """The page; also gives its lines."""
    rounds = max(turn.round for turn in slices)
    counted = [turn for turn in slices if turn.round] or list(slices)
    files = Counter(Path(video).name for video in circumstances.videos)
    lines = [
        f"{circumstances.model}, {circumstances.weights}; {circumstances.machine}",
        "",
        f"The same {len(circumstances.videos)} videos and weights for all, slice by slice in turns, {rounds} rounds;"
        f" {len(counted)} slices. While one works, the others' processes stand idle.",
        f"Load average at the start {circumstances.load:.2f}; others took at most"
        f" {max(turn.others_share for turn in counted):.1%} of the processor in a slice, idle contestants"
        f" {max(turn.idle_share for turn in counted):.1%}.",
        f"clipserve runs the network by OpenVINO, in {circumstances.precision} by its own choice; the others compute"
        " in fp32. All decode with the same FFmpeg. The plain ensemble runs in clipserve's embedded Triton and its"
        " stand-in for the ONNX Runtime backend.",
        *(f"\n**Beware:** {warning}." for warning in find_warnings(slices, circumstances)),
        "",
        "| | videos/s | p50, s | p95, s | processor s a video | peak memory, MiB | same best class | furthest score |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for summary in summaries:
        cells = [
            f"{summary.rate:.2f}",
            f"{summary.median_latency:.2f}",
            f"{summary.late_latency:.2f}",
            f"{summary.cost:.3f}",
            f"{summary.peak_bytes / 2**20:.0f}",
            f"{summary.same_top} of {summary.compared}",
            f"{summary.furthest:.1%}",
        ]
        failed = f" ({summary.failed} failed)" if summary.failed else ""
        lines.append(f"| {summary.contestant.title}{failed} | {' | '.join(cells)} |")
    lines += [
        "",
        "Times and memory are those of all processes of a contestant, client and server, workers and all; memory is the"
        " peak of their proportional set sizes in a round of its own. Scores are compared with the codelab's way;"
        " differences are over its best score.",
        "",
        f"What clipserve has over the others, medians of {rounds} rounds (lowest to highest):",
        "",
        "| against | videos/s, times | wanted on two cores | processor s a video, times |",
        "|---|---:|---:|---:|",
    ]
    for summary in summaries:
        if summary.contestant.key != OURS and not summary.contestant.seat:
            wanted = WANTED.get(summary.contestant.key) if circumstances.is_claim else None
            least = f"{wanted:.0f}" if wanted else ""
            title = summary.contestant.title
            lines.append(f"| {title} | {spread(summary.rate_ratios)} | {least} | {spread(summary.cost_ratios)} |")
    lines += ["", "Settings, the best in videos/s of those in benchmarks/rivals/lineup.py:", ""]
    lines += [f"* {summary.contestant.title}: {describe(summary.setting)}" for summary in summaries]
    lines += ["", "Videos: " + ", ".join(f"{times} x {name}" if times > 1 else name for name, times in files.items())]
    path.write_text("\n".join(lines) + "\n")
    return lines


def write_slices(slices: Sequence[Slice], path: Path) -> None:
    """Every slice, for those who want to reckon themselves."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for turn in slices:
            latencies = [answer["seconds"] for answer in turn.answered]
            writer.writerow(
                [
                    turn.key,
                    turn.round,
                    len(turn.answers),
                    len(turn.answers) - len(turn.answered),
                    f"{turn.seconds:.2f}",
                    f"{turn.rate:.3f}",
                    f"{statistics.median(latencies):.3f}" if latencies else "",
                    f"{turn.cost:.3f}",
                    f"{turn.peak_bytes / 2**20:.0f}" if turn.peak_bytes else "",
                    f"{turn.others_share:.3f}",
                    f"{turn.idle_share:.3f}",
                ]
            )


def draw(summaries: Sequence[Summary], model: str, path: Path) -> None:
    """Bars: videos a second, processor seconds a video, late latency, memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = {
        "videos a second": [summary.rate for summary in summaries],
        "processor seconds a video": [summary.cost for summary in summaries],
        "latency, 95th percentile, s": [summary.late_latency for summary in summaries],
        "peak memory, GiB": [summary.peak_bytes / 2**30 for summary in summaries],
    }
    titles = [summary.contestant.title for summary in summaries]
    colours = [BLUE if summary.contestant.key.startswith(OURS) else GREY for summary in summaries]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(13, 0.42 * len(titles) + 1.4), sharey=True, layout="constrained"
    )
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        bars = axis.barh(titles, values, color=colours, height=0.7)
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlim(0, max(values) * 1.22 or 1)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#e6e8ec", linewidth=0.8)
        axis.set_axisbelow(True)
    axes[0].invert_yaxis()
    figure.suptitle(f"{model}: the same videos, the same weights, the same machine", x=0.01, ha="left", weight="bold")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
