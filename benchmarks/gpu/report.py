"""The outcomes as a page of tables, a CSV of every cell, and a JSON file of the machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.outcomes import Measured, Outcomes, tolerance_for
from benchmarks.gpu.plan import RUNTIMES, SERVED, Cell, Engine
from benchmarks.harness.results import table, write_csv

# Multiplications, each with an addition, of a clip: pytorchvideo docs/source/model_zoo.md.
PUBLISHED_GFLOPS = {
    "x3d_xs": 0.91,
    "x3d_s": 2.96,
    "x3d_m": 6.72,
    "x3d_l": 26.64,
    "mvit_base_16x4": 70.80,
    "mvit_base_32x3": 170.37,
}
LEGEND = (
    "Clips a second, with batches back to back on the device; `x`: times as fast as the network as PyTorchVideo builds",
    "it, in float32, in the same rounds; `%`: share of the best matrix product in the same precision. A star: answers",
    "are not within the tolerance. MiB are those of a run of the largest batch, beside the weights. gpu.csv has all",
    "cells. Random weights have the speed of any weights; their best classes are near ties, so only trained weights",
    "must keep theirs.",
)


class Report:
    """The files of one state of the outcomes."""

    def __init__(self, outcomes: Outcomes, machine: dict[str, Any], rates: dict[str, float]) -> None:
        self.outcomes, self.machine, self.rates = outcomes, machine, rates
        self.batches = sorted({m.cell.batch for m in outcomes.measured})

    def share(self, m: Measured) -> float:
        """Of the best matrix product in its precision."""
        return m.clips_a_second * self.outcomes.operations[m.cell.model] / self.rates[m.cell.engine.precision]

    def csv_rows(self) -> Iterator[dict[str, Any]]:
        """A row for each cell, with the same columns in all."""
        columns = [self._name_cell(m.cell) | self._numbers(m) for m in self.outcomes.measured]
        yield from columns
        empty = dict.fromkeys(columns[0] if columns else ("outcome",), "")
        for missing in self.outcomes.missing:
            yield empty | self._name_cell(missing.cell) | {"outcome": f"{missing.kind}: {missing.reason}"}

    @staticmethod
    def _name_cell(cell: Cell) -> dict[str, Any]:
        return {"model": cell.model, "batch": cell.batch, **vars(cell.engine)}

    def _numbers(self, m: Measured) -> dict[str, str]:
        return {
            "outcome": "measured",
            "clips_a_second": f"{m.clips_a_second:.2f}",
            "times_baseline": f"{m.gain:.3f}",
            "milliseconds": f"{m.seconds * 1000:.3f}",
            "spread": f"{m.rounds.spread:.3f}",
            "round_trip_milliseconds": f"{m.round_trip_seconds * 1000:.3f}",
            "share_of_matrix_rate": f"{self.share(m):.4f}",
            "mebibytes": "" if m.mebibytes is None else f"{m.mebibytes:.1f}",
            "prepare_seconds": f"{m.prepare_seconds:.1f}",
            "score_error": f"{m.closeness.score_error:.1e}",
            "feature_error": f"{m.closeness.feature_error:.1e}",
            "top1_agreement": f"{m.closeness.agreement:.3f}",
            "holds": "yes" if m.holds else "no",
        }

    def page(self) -> Iterator[str]:
        """The lines of the page."""
        driver = self.machine.get("nvidia-smi", {})
        facts = [f"{name} {number}" for name, number in self.machine["versions"].items()]
        if driver:
            facts = [
                f"driver {driver.get('driver_version')}, CUDA {self.machine['cuda']}",
                f"power limit {driver.get('power.limit')}, clocks {driver.get('clocks.sm')} of"
                f" {driver.get('clocks.max.sm')}",
                *facts,
            ]
        best = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in self.rates.items())
        yield from (f"# Networks on {self.machine['device']}", "", f"{', '.join(facts)}.")
        yield from (f"Best matrix product measured, TFLOP/s: {best}.", "", *LEGEND)
        cells = {(m.cell.model, m.cell.batch) for m in self.outcomes.measured}
        models = list(dict.fromkeys(m.cell.model for m in self.outcomes.measured))
        if models:
            yield from ("", "## What to choose", "")
        for model in models:
            yield from (self._recommend(model, batch) for batch in self.batches if (model, batch) in cells)
        for model in models:
            yield from ("", f"## {model}", "", self._describe_operations(model), "", *self._tabulate_speed(model), "")
            yield from self._tabulate_rest(model)
        yield from self._list_missing()

    def _recommend(self, model: str, batch: int) -> str:
        best, served = (self.outcomes.recommend(model, batch, runtimes) for runtimes in (RUNTIMES, SERVED))
        if best is None:
            return f"* {model}, batch {batch}: nothing held."
        text = f"* {model}, batch {batch}: {self._describe(best)}, {self.share(best):.0%}"
        if served is None:
            return f"{text}; of what Triton serves as exported, nothing ran and held."
        if served == best:
            return f"{text}, which Triton serves as exported."
        return f"{text}; of what Triton serves as exported: {self._describe(served)}."

    @staticmethod
    def _describe(m: Measured) -> str:
        return f"{m.cell.engine}: {m.clips_a_second:.0f} clips/s, {m.gain:.2f} x"

    def _describe_operations(self, model: str) -> str:
        operations = self.outcomes.operations[model]
        counted = f"{operations / 1e9:.2f} GFLOP a clip as counted, a multiplication and an addition being two"
        published = PUBLISHED_GFLOPS.get(model)
        return f"{counted}; published: 2 x {published}." if published else f"{counted}."

    def _measured(self, model: str) -> dict[Engine, dict[int, Measured]]:
        found: dict[Engine, dict[int, Measured]] = {}
        for m in self.outcomes.measured:
            if m.cell.model == model:
                found.setdefault(m.cell.engine, {})[m.cell.batch] = m
        return found

    def _tabulate_speed(self, model: str) -> list[str]:
        missing = {m.cell: m.kind for m in self.outcomes.missing}
        rows = []
        for engine, found in self._measured(model).items():
            cells = []
            for batch in self.batches:
                m = found.get(batch)
                if m:
                    star = "" if m.holds else " *"
                    cells.append(f"{m.clips_a_second:.4g} ({m.gain:.2f} x, {self.share(m):.1%}){star}")
                else:
                    cells.append(missing.get(Cell(model, batch, engine), ""))
            rows.append([engine, *cells])
        return table(["clips/s", *(f"batch {batch}" for batch in self.batches)], rows)

    def _tabulate_rest(self, model: str) -> list[str]:
        columns = ["engine", "feature error (allowed)", "same best class"]
        columns += ["ms from host and back, smallest and largest batch", "MiB of the largest", "seconds to prepare"]
        rows = []
        for engine, found in self._measured(model).items():
            several = [found[batch] for batch in sorted(found)]
            small, large = several[0], several[-1]
            worst = max(m.closeness.feature_error for m in several)
            trips = (f"{m.round_trip_seconds * 1000:.2f} ({m.cell.batch})" for m in dict.fromkeys((small, large)))
            rows.append(
                [
                    engine,
                    f"{worst:.0e} ({tolerance_for(engine.precision).features:.0e})",
                    f"{min(m.closeness.agreement for m in several):.0%}",
                    ", ".join(trips),
                    "" if large.mebibytes is None else f"{large.mebibytes:.0f}",
                    f"{max(m.prepare_seconds for m in several):.1f}",
                ]
            )
        return table(columns, rows)

    def _list_missing(self) -> Iterator[str]:
        for kind in ("could not be tested", "cut off", "failed"):
            reasons = Counter(
                (missing.cell.model, missing.cell.engine.runtime, missing.reason)
                for missing in self.outcomes.missing
                if missing.kind == kind
            )
            if reasons:
                yield from ("", f"## {kind.capitalize()}", "")
            for (model, runtime, reason), count in reasons.items():
                yield f"* {model}, {runtime}, {count} {'cell' if count == 1 else 'cells'}: {reason}"


def write_report(folder: Path, outcomes: Outcomes, machine: dict[str, Any], rates: dict[str, float]) -> str:
    """Write gpu.md, gpu.csv and gpu.json into `folder`; returns the page."""
    report = Report(outcomes, machine, rates)
    write_csv(folder / "gpu.csv", list(report.csv_rows()))
    page = "\n".join(report.page()) + "\n"
    (folder / "gpu.md").write_text(page)
    facts = {"machine": machine, "matrix_operations_a_second": rates, "operations_a_clip": outcomes.operations}
    (folder / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
    return page
