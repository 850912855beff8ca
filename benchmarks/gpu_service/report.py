"""The results as a page of tables, a CSV of every measurement, and a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.outcomes import tolerance_for
from benchmarks.gpu_service.measure import Answer, FirstRequests, Measured
from benchmarks.gpu_service.plan import WANTED, Cell
from benchmarks.harness.results import BLUE, GREY, ORANGE, new_figure, save_figure, table, write_csv, write_page

COLUMNS = ("decoder", "in flight", "a second", "p50 ms", "p95 ms", "refused, failed")
USE_COLUMNS = ("GPU busy", "NVDEC busy", "GPU MiB", "cores busy")
MAX_FIRST_RATIO = 2.0


@dataclass
class Results:
    """All results so far.

    Attributes:
        machine: one line about processor, GPU and packages.
        network: the network as it was exported: format, precision, videos in a run, instances.
        precision: of the network.
        parameters: of the decode step, where they are not those of its config.
        missing: what was not measured, and the reason.
    """

    machine: str
    network: str = ""
    precision: str = "fp32"
    parameters: Mapping[str, str] = field(default_factory=dict)
    first: list[FirstRequests] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def add_missing(self, what: Cell | str, reason: str) -> None:
        """Add something that was not measured."""
        self.missing.append((f"{what.part} by {what.decoder}" if isinstance(what, Cell) else what, reason))

    def summarise_missing(self) -> str:
        """One line."""
        if not self.missing:
            return "everything planned was measured"
        counts = Counter(self.missing)
        named = (
            f"{what}{f' ({count} times)' if count > 1 else ''}: {reason}" for (what, reason), count in counts.items()
        )
        return f"not measured: {'; '.join(named)}"


def write_results(results: Results, folder: Path) -> None:
    """Write gpu_service.md, gpu_service.csv and gpu_service.png."""
    write_csv(folder / "gpu_service.csv", [csv_row(m) for m in results.measured])
    write_page(folder / "gpu_service.md", list(page(results)))
    if any(m.cell.part != "network" for m in results.measured):
        plot(results.measured, folder / "gpu_service.png")


def csv_row(m: Measured) -> dict[str, Any]:
    """The same columns for every measurement; empty where nothing is known."""
    use = m.use
    return {
        "part": m.cell.part,
        "name": m.cell.name,
        "decoder": m.cell.decoder,
        "in_flight": m.cell.in_flight,
        "a_second": f"{m.calls.rate:.2f}",
        "p50_milliseconds": f"{m.calls.median * 1000:.2f}",
        "p95_milliseconds": f"{m.calls.percentile(95) * 1000:.2f}",
        "refused": len(m.calls.refused),
        "failed": sum(m.calls.failed.values()),
        "seconds": f"{m.calls.seconds:.2f}",
        "nvdec_percent": "" if m.by_nvdec is None else f"{m.by_nvdec * 100:.0f}",
        "equal_clips": m.equal if m.compared else "",
        "compared_clips": m.compared or "",
        "gpu_percent": _number(use.gpu_percent),
        "decoder_percent": _number(use.decoder_percent),
        "gpu_mebibytes": _number(use.gpu_megabytes),
        "cores": f"{use.cores:.2f}",
        "wanted": _wanted(m),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _wanted(m: Measured) -> str:
    """Of the best way to run a network or the service."""
    best = m.cell.decoder == "auto" and (m.cell.part == "service" or m.cell.in_flight == 32)
    return str(WANTED.get(m.cell.name, "")) if best and m.cell.part != "decode" else ""


def page(results: Results) -> Iterator[str]:
    """The lines of the page."""
    missing = results.summarise_missing()
    yield from (results.machine, "", f"{results.network}. {missing[0].upper()}{missing[1:]}.", "")
    if results.parameters:
        yield from (f"Decode step: {', '.join(map('='.join, results.parameters.items()))}.", "")
    yield from (
        "One clip of each video. `wanted`: what one H100 with 16 cores should reach. NVDEC takes H.264 and HEVC beside",
        "the CPU; AV1 goes to the CPU. `equal clips`: after each measurement, the clips in shared memory are compared",
        "with a decode by the CPU in another process.",
    )
    if results.first:
        yield from ("", "## First requests", "", *_tabulate_first(results.first))
    by_part = {part: [m for m in results.measured if m.cell.part == part] for part in ("network", "decode", "service")}
    titles = {"network": "The network alone", "decode": "Decoding alone", "service": "The whole service"}
    for part, several in by_part.items():
        if several:
            yield from ("", f"## {titles[part]}", "", *_tabulate(several))
    if results.answers:
        yield from ("", "## Answers beside the CPU's", "", *_tabulate_answers(results))


def _tabulate_first(first: Sequence[FirstRequests]) -> list[str]:
    rows = (
        [one.what, *(f"{seconds * 1000:.1f}" for seconds in one.first), f"{one.later * 1000:.1f}", f"{one.ratio:.1f}"]
        for one in first
    )
    names = [f"{ordinal}, ms" for ordinal in ("first", "second", "third")]
    return table(["", *names, "later, ms", f"slowest to later (wanted: {MAX_FIRST_RATIO:.0f})"], rows)


def _tabulate(several: Sequence[Measured]) -> list[str]:
    decodes = several[0].cell.part != "network"
    compares = several[0].cell.part == "decode"
    extra = [*(["by NVDEC"] if decodes else []), *(["equal clips"] if compares else []), "wanted"]
    rows = []
    for m in several:
        row = csv_row(m)
        cells = [m.cell.name, m.cell.decoder if decodes else "", m.cell.in_flight, f"{m.calls.rate:.1f}"]
        cells += [f"{float(row[name]):.1f}" for name in ("p50_milliseconds", "p95_milliseconds")]
        cells += [f"{row['refused']}, {row['failed']}"]
        cells += [f"{row['nvdec_percent']} %"] if decodes else []
        cells += [f"{m.equal} of {m.compared}"] if compares else []
        percents = [f"{row[name]} %" if row[name] else "" for name in ("gpu_percent", "decoder_percent")]
        rows.append([*cells, row["wanted"], *percents, row["gpu_mebibytes"], f"{m.use.cores:.1f}"])
    return table(["", *COLUMNS, *extra, *USE_COLUMNS], rows)


def _tabulate_answers(results: Results) -> list[str]:
    allowed = tolerance_for(results.precision)
    columns = ["video", "decoded by", f"scores differ by (at most {allowed.scores:.0e})"]
    columns += [f"features, of the largest (at most {allowed.features:.0e})", "best class equal"]
    rows = (
        [
            answer.video,
            answer.decoder,
            f"{answer.closeness.score_error:.1e}",
            f"{answer.closeness.feature_error:.1e}",
            "yes" if answer.closeness.agreement == 1 else "no",
        ]
        for answer in results.answers
    )
    return table(columns, rows, texts=2)


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Videos a second by video: decoding and service, with CPUs alone and with NVDEC beside them."""
    videos = list(dict.fromkeys(m.cell.name for m in measured if m.cell.part != "network"))
    figure, panels = new_figure(2, figsize=(11, 0.5 * len(videos) + 2), sharey=True)
    for panel, (part, title) in zip(
        panels, {"decode": "Decoding alone", "service": "Whole service"}.items(), strict=True
    ):
        for shift, decoder, colour in ((-0.2, "auto", BLUE), (0.2, "cpu", ORANGE)):
            rates = {m.cell.name: m.calls.rate for m in measured if (m.cell.part, m.cell.decoder) == (part, decoder)}
            places = [videos.index(name) + shift for name in rates]
            bars = panel.barh(places, list(rates.values()), height=0.38, color=colour, label=f"decoder {decoder}")
            panel.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        wanted = [(videos.index(name), WANTED[name]) for name in videos if part == "service" and name in WANTED]
        if wanted:
            panel.scatter(
                [value for _, value in wanted],
                [place for place, _ in wanted],
                color=GREY,
                marker="|",
                s=300,
                label="wanted on an H100",
            )
        panel.set_title(title)
        panel.set_xlabel("videos a second")
        panel.set_yticks(range(len(videos)), videos)
    panels[0].invert_yaxis()
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)
