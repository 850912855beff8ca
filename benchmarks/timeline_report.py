"""The results of timeline.py: a page of Markdown, a CSV and a plot of the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.harness.load import Calls
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.results import BLUE, GREY, ORANGE, new_figure, save_figure, table, write_csv, write_page

SAMPLE = 24  # windows that stand for all, where each costs a call
MIB = 2**20


@dataclass(frozen=True)
class Film:
    """The video, and the windows that are asked for."""

    path: Path
    minutes: int
    window: float
    step: float

    @property
    def video(self) -> bytes:
        """The bytes of the file."""
        return self.path.read_bytes()

    @property
    def starts(self) -> list[float]:
        """Start of each window in seconds."""
        return np.arange(0, self.minutes * 60, self.step).tolist()

    @property
    def sample(self) -> list[float]:
        """Starts of some windows, spread over the film."""
        starts = self.starts
        return [starts[place] for place in np.linspace(0, len(starts) - 1, min(SAMPLE, len(starts))).astype(int)]


@dataclass
class Memory:
    """MiB of each process over time."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def peak(self, name: str, first: float = 0.0, last: float = 1.0) -> float:
        """The largest value in a part of the run."""
        part = self.rows[int(len(self.rows) * first) : int(len(self.rows) * last) + 1]
        return max((row[name] for row in part), default=float("nan"))


def table_of_latencies(measured: Mapping[str, Calls]) -> list[str]:
    """Lines of a table; `measured` has the calls "alone"."""
    alone = measured["alone"].percentile(95)
    rows = []
    for name, calls in measured.items():
        slow = calls.percentile(95)
        rows.append((name, f"{calls.median * 1000:.0f}", f"{slow * 1000:.0f}", f"{slow / alone:.2f}"))
    return table(["", "p50 ms", "p95 ms", "times p95 alone"], rows)


def write_report(page: Path, film: Film, options: str, lines: list[str], memory: Memory) -> None:
    """Write the page with these lines about the time; and the memory to it, to a CSV and to a plot beside it."""
    size = film.path.stat().st_size / MIB
    names = [name for name in memory.rows[0] if name != "seconds"]
    halves = [(name, f"{memory.peak(name, 0, 0.5):.0f}", f"{memory.peak(name, 0.5, 1):.0f}") for name in names]
    write_csv(page.with_suffix(".csv"), [{name: round(value, 1) for name, value in row.items()} for row in memory.rows])
    write_page(
        page,
        [
            "# A timeline of a long video",
            "",
            f"`python -m benchmarks.timeline {options}`:"
            f" {film.minutes} minutes of H.264, 640 x 360, {size:.0f} MiB; {len(film.starts)} windows of"
            f" {film.window:g} s, one every {film.step:g} s.",
            describe_machine("av", "numpy", "openvino", "tritonclient") + ".",
            "",
            *lines,
            "",
            "## Memory",
            "",
            "The largest MiB in the first and in the second half of the film.",
            "",
            *table(["", "first half", "second half"], halves),
            "",
            f"![memory over time]({page.stem}.png)",
        ],
    )
    figure, (panel,) = new_figure(1, figsize=(8, 4))
    for name, color in zip(names, (GREY, BLUE, ORANGE), strict=True):
        panel.plot([row["seconds"] for row in memory.rows], [row[name] for row in memory.rows], label=name, color=color)
    panel.set_xlabel("seconds")
    panel.set_ylabel("MiB")
    panel.set_ylim(bottom=0)
    panel.legend()
    save_figure(figure, page.with_suffix(".png"))
