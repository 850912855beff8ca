"""What a load test of this very server with these very videos found: the results of `clipserve loadtest`."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

from clipserve.errors import InvalidRequest


@dataclass(frozen=True)
class LoadTestFindings:
    """What the folder says.

    Attributes:
        source: the file.
        model: what was tested.
        cores: of the server, where the load test started it; None: of another machine.
        peak: the highest rate in closed loop, answers a second.
        open_loop: (rate, p95 in milliseconds) of the runs in open loop that succeeded.
        alone: p95 in milliseconds with the fewest requests at a time in closed loop.
    """

    source: str
    model: str
    cores: int | None
    peak: float
    open_loop: tuple[tuple[float, float], ...]
    alone: float

    def rate_within(self, latency: float) -> float | None:
        """The highest rate whose p95 was at most so many milliseconds; None if there was none."""
        return max((rate for rate, p95 in self.open_loop if p95 <= latency), default=None)


def read_load_test(folder: Path) -> LoadTestFindings:
    """Read load.csv and facts.json.

    Raises:
        InvalidRequest: they are not there, or hold no run that succeeded.
    """
    table, facts = folder / "load.csv", folder / "facts.json"
    try:
        with table.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["through"] == "ensemble" and not row["failure"]]
        found = json.loads(facts.read_text())
        closed = [_read_numbers(row, "load", "throughput", "p95") for row in rows if row["mode"] == "closed"]
        opened = [_read_numbers(row, "throughput", "p95") for row in rows if row["mode"] == "open"]
        model, cores = str(found["model"]), found["server_cores"]
        if cores is not None and (type(cores) is not int or cores < 1):
            raise ValueError(f"server_cores is {cores!r}")
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise InvalidRequest(
            f"{str(folder)!r} has no results of a load test ({error}): give the folder that `clipserve loadtest` names"
            " at its end, with load.csv and facts.json"
        ) from error
    if not closed:
        raise InvalidRequest(f"{str(table)!r} has no run of the ensemble in closed loop that succeeded")
    peak = max(throughput for _, throughput, _ in closed)
    return LoadTestFindings(str(table), model, cores, peak, tuple((rate, p95) for rate, p95 in opened), min(closed)[2])


def _read_numbers(row: dict[str, str], *columns: str) -> list[float]:
    """The numbers of a row. Raises ValueError: one is not above 0."""
    numbers = [float(row[column]) for column in columns]
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{', '.join(columns)} are {numbers}")
    return numbers
