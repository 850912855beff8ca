"""The outcomes as a page of tables, a CSV of every cell, and a JSON file of the machine."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_matrix.cells import RUNTIMES, SERVED, Engine
from gpu_matrix.outcomes import Book, Measured, tolerance_for

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
    "Clips a second, one batch behind the other on the device; `x` is times faster than the network as PyTorchVideo",
    "builds it, in float32, in the same rounds; `%` is the share of the best matrix product in the same precision. A",
    "star: the answers are not close enough. MiB are those of a run of the largest batch, beside weights. All cells",
    "are in gpu.csv. Random weights have the speed of any weights; their best classes are near ties, so only those of",
    "trained weights must stay the same.",
)
CSV_FIELDS = (
    "model",
    "batch",
    "runtime",
    "precision",
    "layout",
    "outcome",
    "clips_a_second",
    "times_baseline",
    "milliseconds",
    "spread",
    "round_trip_milliseconds",
    "share_of_matrix_rate",
    "mebibytes",
    "prepare_seconds",
    "score_error",
    "feature_error",
    "top1_agreement",
    "holds",
)


def write_report(folder: Path, book: Book, machine: dict[str, Any], rates: dict[str, float]) -> str:
    """Write gpu.md, gpu.csv and gpu.json into `folder`; gives the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = "\n".join(_write_page(book, machine, rates)) + "\n"
    (folder / "gpu.md").write_text(page)
    facts = {"machine": machine, "matrix_operations_a_second": rates, "operations_a_clip": book.operations}
    (folder / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
    with (folder / "gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_list_rows(book, rates))
    return page


def _share(measured: Measured, book: Book, rates: dict[str, float]) -> float:
    done = measured.clips_a_second * book.operations[measured.cell.model]
    return done / rates[measured.cell.engine.precision]


def _list_rows(book: Book, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    for m in book.measured:
        yield {
            **_name(m.cell.model, m.cell.batch, m.cell.engine),
            "outcome": "measured",
            "clips_a_second": f"{m.clips_a_second:.2f}",
            "times_baseline": f"{m.gain:.3f}",
            "milliseconds": f"{m.seconds * 1000:.3f}",
            "spread": f"{m.spread:.3f}",
            "round_trip_milliseconds": f"{m.round_trip_seconds * 1000:.3f}",
            "share_of_matrix_rate": f"{_share(m, book, rates):.4f}",
            "mebibytes": "" if m.mebibytes is None else f"{m.mebibytes:.1f}",
            "prepare_seconds": f"{m.prepare_seconds:.1f}",
            "score_error": f"{m.closeness.score_error:.1e}",
            "feature_error": f"{m.closeness.feature_error:.1e}",
            "top1_agreement": f"{m.closeness.agreement:.3f}",
            "holds": "yes" if m.holds else "no",
        }
    for missing in book.missing:
        named = _name(missing.cell.model, missing.cell.batch, missing.cell.engine)
        yield {**named, "outcome": f"{missing.kind}: {missing.reason}"}


def _name(model: str, batch: int, engine: Engine) -> dict[str, Any]:
    return {
        "model": model,
        "batch": batch,
        "runtime": engine.runtime,
        "precision": engine.precision,
        "layout": engine.layout,
    }


def _write_page(book: Book, machine: dict[str, Any], rates: dict[str, float]) -> Iterator[str]:
    driver = machine.get("nvidia-smi", {})
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    yield f"# Networks on {machine['device']}"
    yield ""
    if driver:
        yield (
            f"Driver {driver.get('driver_version')}, CUDA {machine['cuda']}, power limit {driver.get('power.limit')},"
            f" clocks {driver.get('clocks.sm')} of {driver.get('clocks.max.sm')}; {versions}."
        )
    else:
        yield f"{versions}."
    best = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in rates.items())
    yield f"Best matrix product measured, TFLOP/s: {best}."
    yield ""
    yield from LEGEND
    models = list(dict.fromkeys(m.cell.model for m in book.measured))
    batches = sorted({m.cell.batch for m in book.measured})
    if models:
        yield from ("", "## What to choose", "")
    for model in models:
        yield from (_recommend(book, rates, model, batch) for batch in batches if _ran(book, model, batch))
    for model in models:
        yield from ("", f"## {model}", "", _count_operations(model, book.operations[model]), "")
        yield from _tabulate_speed(book, rates, model, batches)
        yield ""
        yield from _tabulate_rest(book, model, batches)
    yield from _list_missing(book)


def _ran(book: Book, model: str, batch: int) -> bool:
    return any((m.cell.model, m.cell.batch) == (model, batch) for m in book.measured)


def _recommend(book: Book, rates: dict[str, float], model: str, batch: int) -> str:
    best, served = (book.recommend(model, batch, runtimes) for runtimes in (RUNTIMES, SERVED))
    if best is None:
        return f"* {model}, {batch} at once: nothing held."
    words = (
        f"* {model}, {batch} at once: {best.cell.engine}: {best.clips_a_second:.0f} clips/s,"
        f" {best.gain:.2f} x, {_share(best, book, rates):.0%}"
    )
    if served is None:
        return f"{words}; of what Triton serves as exported, nothing ran and held."
    if served == best:
        return f"{words}, which Triton serves as exported."
    return (
        f"{words}; of what Triton serves as exported: {served.cell.engine}: {served.clips_a_second:.0f} clips/s,"
        f" {served.gain:.2f} x."
    )


def _count_operations(model: str, operations: int) -> str:
    counted = f"{operations / 1e9:.2f} GFLOP a clip as counted, a multiplication and an addition being two"
    published = PUBLISHED_GFLOPS.get(model)
    return f"{counted}; published: 2 x {published}." if published else f"{counted}."


def _tabulate_speed(book: Book, rates: dict[str, float], model: str, batches: Sequence[int]) -> Iterator[str]:
    found = {(m.cell.engine, m.cell.batch): m for m in book.measured if m.cell.model == model}
    missing = {(m.cell.engine, m.cell.batch): m for m in book.missing if m.cell.model == model}
    yield f"| clips/s | {' | '.join(f'{batch} at once' for batch in batches)} |"
    yield f"| --- |{' ---: |' * len(batches)}"
    for engine in dict.fromkeys(engine for engine, _ in found):
        cells = []
        for batch in batches:
            m = found.get((engine, batch))
            if m:
                star = "" if m.holds else " *"
                cells.append(f"{m.clips_a_second:.4g} ({m.gain:.2f} x, {_share(m, book, rates):.1%}){star}")
            else:
                gap = missing.get((engine, batch))
                cells.append(gap.kind if gap else "")
        yield f"| {engine} | {' | '.join(cells)} |"


def _tabulate_rest(book: Book, model: str, batches: Sequence[int]) -> Iterator[str]:
    found = {(m.cell.engine, m.cell.batch): m for m in book.measured if m.cell.model == model}
    yield (
        "| engine | feature error (allowed) | same best class | ms from host and back, smallest and largest batch |"
        + (" MiB of the largest | seconds to prepare |")
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for engine in dict.fromkeys(engine for engine, _ in found):
        sizes = [batch for batch in batches if (engine, batch) in found]
        small, large = found[engine, sizes[0]], found[engine, sizes[-1]]
        worst = max((found[engine, size] for size in sizes), key=lambda m: m.closeness.feature_error)
        memory = "" if large.mebibytes is None else f"{large.mebibytes:.0f}"
        prepared = max(found[engine, size].prepare_seconds for size in sizes)
        agreement = min(found[engine, size].closeness.agreement for size in sizes)
        error = f"{worst.closeness.feature_error:.0e} ({tolerance_for(engine.precision).features:.0e})"
        trips = ", ".join(f"{m.round_trip_seconds * 1000:.2f} ({m.cell.batch})" for m in dict.fromkeys((small, large)))
        yield f"| {engine} | {error} | {agreement:.0%} | {trips} | {memory} | {prepared:.1f} |"


def _list_missing(book: Book) -> Iterator[str]:
    for kind in ("could not be tested", "cut off", "failed"):
        reasons = Counter(
            (missing.cell.model, missing.cell.engine.runtime, missing.reason)
            for missing in book.missing
            if missing.kind == kind
        )
        if not reasons:
            continue
        yield from ("", f"## {kind.capitalize()}", "")
        for (model, runtime, reason), count in reasons.items():
            yield f"* {model}, {runtime}, {count} {'cell' if count == 1 else 'cells'}: {reason}"
