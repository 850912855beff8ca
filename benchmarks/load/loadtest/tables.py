"""The numbers of a load test as a table: for files, for the terminal, for the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipserve.evaluation.extra import load
from loadtest.measurements import COLUMNS, Measurement

# Column -> heading and digits after the point, for people; files have every column under its own name.
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
MODES = {"closed": "at a time", "open": "a second"}


def tabulate(measurements: Sequence[Measurement]) -> Any:
    """A pandas frame with a row for each measurement; by what was asked, then by load."""
    frame = load("pandas").DataFrame([vars(found) for found in measurements], columns=list(COLUMNS))
    order = {name: number for number, name in enumerate(dict.fromkeys(frame["through"]))}
    by = frame.assign(order=frame["through"].map(order)).sort_values(["order", "mode", "load"], kind="stable")
    return by.drop(columns="order").reset_index(drop=True)


def write_table(path: Path, measurements: Sequence[Measurement]) -> None:
    """As CSV, with all digits."""
    tabulate(measurements).to_csv(path, index=False)


def format_rows(measurements: Sequence[Measurement]) -> list[dict[str, str]]:
    """Rows as text, with the columns `through`, `load`, those of SHOWN and `failure`."""
    rows = []
    for record in tabulate(measurements).to_dict("records"):
        cells = {name: _format(record[name], digits) for name, (_, digits) in SHOWN.items()}
        strain = f"{record['load']:g} {MODES[record['mode']]}"
        late = f"{record['delayed']:g} % sent late" if record["delayed"] else ""
        rows.append({"through": record["through"], "load": strain, **cells, "failure": record["failure"] or late})
    return rows


def _format(value: Any, digits: int) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


def print_table(measurements: Sequence[Measurement], console: Any) -> None:
    """In the terminal. `console`: rich's."""
    from rich.table import Table

    rows = format_rows(measurements)
    failing = any(row["failure"] for row in rows)
    table = Table("through", "load", *(heading for heading, _ in SHOWN.values()), *(["note"] if failing else []))
    for column in table.columns[2 : 2 + len(SHOWN)]:
        column.justify = "right"
    before = None
    for row in rows:
        if before not in (None, row["through"]):
            table.add_section()
        before = row["through"]
        table.add_row(
            row["through"], row["load"], *(row[name] for name in SHOWN), *([row["failure"]] if failing else [])
        )
    console.print(table)
