"""The results of a load test as a CSV file, as a table in the terminal, and as one self-contained HTML page."""

import csv
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from clipserve.loadtest.load_test import LoadTest, LoadTestPlan, LoadTestResults
from clipserve.loadtest.measurements import COLUMNS, Measurement
from clipserve.loadtest.plots import MODES, draw_svgs, write_pngs
from clipserve.pages import render

# Column -> heading and decimals, for people. The CSV file has every column under its own name.
SHOWN: dict[str, tuple[str, int]] = {
    "throughput": ("answers/s", 1),
    "p50": ("p50", 0),
    "p95": ("p95", 0),
    "p99": ("p99", 0),
    "queue": ("queue", 1),
    "decode": ("decode", 1),
    "model": ("model", 1),
    "outside": ("outside", 1),
    "batch": ("batch", 1),
    "spread": ("spread", 2),
    "requests": ("requests", 0),
}


def sort_measurements(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Sort by `through` (in the order it was measured), loop and load."""
    order = list(dict.fromkeys(found.through for found in measurements))
    return sorted(measurements, key=lambda found: (order.index(found.through), found.mode, found.load))


def write_csv(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write all columns with all digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(found) for found in sort_measurements(measurements))


def format_rows(measurements: Sequence[Measurement]) -> list[dict[str, str]]:
    """Format rows as text, with the columns `through`, `load`, those of SHOWN and `note`."""
    rows = []
    for found in sort_measurements(measurements):
        cells = {name: _format(getattr(found, name), decimals) for name, (_, decimals) in SHOWN.items()}
        late = f"{found.delayed:g} % sent late" if found.delayed else ""
        load = f"{found.load:g} {MODES[found.mode]}"
        rows.append({"through": found.through, "load": load, **cells, "note": found.failure or late})
    return rows


def _format(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def print_table(measurements: Sequence[Measurement], console: Console) -> None:
    """Print the rows in the terminal."""
    rows = format_rows(measurements)
    noted = any(row["note"] for row in rows)
    table = Table("through", "load", *(heading for heading, _ in SHOWN.values()), *(["note"] if noted else []))
    for column in table.columns[2 : 2 + len(SHOWN)]:
        column.justify = "right"
    before = None
    for row in rows:
        if before not in (None, row["through"]):
            table.add_section()
        before = row["through"]
        table.add_row(row["through"], row["load"], *(row[name] for name in SHOWN), *([row["note"]] if noted else []))
    console.print(table)


def render_page(results: LoadTestResults, plan: LoadTestPlan, *, model: str, settings: Mapping[str, str]) -> str:
    """Render the HTML page. `settings`: further facts about the load test."""
    carried = [found for found in results.measurements if found.through == "ensemble" and not found.failure]
    values = {
        "model": model,
        "plan": plan,
        "results": results,
        "settings": settings,
        "best": max((found.throughput or 0.0 for found in carried), default=None),
        "quickest": min((found.p50 or 0.0 for found in carried), default=None),
        "rows": format_rows(results.measurements),
        "headings": SHOWN,
        "drawn": {name: Markup(svg) for name, svg in draw_svgs(results.measurements, plan.limit).items()},
    }
    return render("clipserve.loadtest", "load.html", values, extra="loadtest")


def describe(test: LoadTest, *, embedded: bool, seconds: float) -> dict[str, str]:
    """Facts about the load test for the page."""
    server, plan = test.server, test.plan
    sizes = [path.stat().st_size for path in plan.videos]
    return {
        "server": f"{server.url}, started for this test" if embedded else server.url,
        "metrics": server.metrics_url or "not read",
        "videos": f"{len(sizes)}, {min(sizes) / 1000:.0f} to {max(sizes) / 1000:.0f} kB",
        "seconds for each load": f"{plan.settings.seconds:g}",
        "limit": str(plan.limit),
        "perf_analyzer": f"sha256 {test.analyzer.sha256[:16]}",
        "client": f"clipserve {version('clipserve')}, {platform.node()}, {os.cpu_count()} cores, {platform.platform()}",
        "finished": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}, after {seconds / 60:.1f} minutes",
    }


def publish(test: LoadTest, console: Console, *, embedded: bool, seconds: float) -> None:
    """Write table, facts, plots and page of the results so far, and print them.

    Args:
        embedded: whether the server was started for this test.
        seconds: how long the test took.
    """
    measurements, folder = test.results.measurements, test.folder
    if not measurements:
        return
    write_csv(folder / "load.csv", measurements)
    plots = write_pngs(folder, measurements, test.plan.limit)
    page = folder / "load.html"
    facts = describe(test, embedded=embedded, seconds=seconds)
    cores = len(os.sched_getaffinity(0)) if embedded else None
    (folder / "facts.json").write_text(
        json.dumps({"model": test.server.model, "server_cores": cores, **facts}, indent=2) + "\n"
    )
    page.write_text(render_page(test.results, test.plan, model=test.server.model, settings=facts))
    print_table(measurements, console)
    for result in (test.results.search, test.results.accuracy):
        if result:
            console.print(str(result), markup=False)
    files = ", ".join(path.name for path in (page, folder / "load.csv", *plots))
    console.print(f"{folder}: {files}, raw/", markup=False)
