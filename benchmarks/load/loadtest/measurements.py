"""What perf_analyzer found under one load, read from its table (-f) and from what it says.

The table has no averages of an ensemble's steps, and what it says has no compute times of the client: both are needed.
"""

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean

from loadtest.decoding_time import DecodingTime
from loadtest.loads import Limit, Load, Through

# Columns of the table that make up a request as the client sees it, in microseconds.
PARTS = (
    *("Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input", "Server Compute Infer"),
    *("Server Compute Output", "Client Recv"),
)
PERCENTILES = (50, 90, 95, 99)

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.]+) infer/sec")
_REQUESTS = re.compile(r"^ *Request count: (\d+)", re.MULTILINE)
_DELAYED = re.compile(r"([\d.]+)% of the requests were delayed")
_REFUSAL = re.compile(r"had error: (?:in ensemble '[^']*', )?(.+)")
_ERROR = re.compile(r"^error: (.+)", re.MULTILINE)
_SERVER = "  Server: "
_STEPS = "  Composing models: "
_STEP = re.compile(r"^ *(\S+), version: \S+ *\n", re.MULTILINE)
_COUNTS = re.compile(r"Inference count: (\d+)\s+Execution count: (\d+)")
_LATENCY = re.compile(r"Avg request latency: (\d+) usec \(overhead \d+ usec \+ queue (\d+) usec \+ (compute.*)\)")
_NUMBER = re.compile(r"(\d+) usec")


@dataclass(frozen=True)
class StepTimes:
    """Triton's statistics of one model, in milliseconds a request."""

    latency: float
    queue: float
    compute: float
    batch: float


@dataclass(frozen=True)
class Measurement:
    """One row of the table. Times in milliseconds; None: not measured, or not a part of this.

    Attributes:
        throughput: answers a second, the mean over perf_analyzer's windows but the first, in which it is starting.
        spread: largest over smallest throughput of these windows, less 1.
        mean: of a request, as the client sees it; the sum of the last four.
        queue: in the server, waiting for a step; where decoding time is known, waiting for a decoder as well.
        decode: decoding; where its time is not known, together with the wait for a decoder.
        model: the network, with its tensors' way in and out.
        outside: what the client sees and the server does not: gRPC, the network between them.
        batch: requests that the network computed at once.
        delayed: percent of the requests that perf_analyzer sent too late.
        failure: why there are no numbers; perf_analyzer ends with the first request that fails.
    """

    through: Through
    mode: str
    load: float
    throughput: float | None = None
    spread: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None
    queue: float | None = None
    decode: float | None = None
    model: float | None = None
    outside: float | None = None
    compute_input: float | None = None
    compute_infer: float | None = None
    compute_output: float | None = None
    batch: float | None = None
    requests: int = 0
    delayed: float = 0.0
    gpu: str = ""
    failure: str = ""

    def percentile(self, number: int) -> float | None:
        """One of PERCENTILES, in milliseconds."""
        value: float | None = getattr(self, f"p{number}")
        return value

    def meets(self, limit: Limit) -> bool:
        """Whether this load was carried within the limit."""
        latency = self.percentile(limit.percentile)
        return not self.failure and latency is not None and latency <= limit.milliseconds

    def __str__(self) -> str:
        if self.failure:
            return f"failed: {self.failure}"
        late = f", {self.delayed:g} % sent late" if self.delayed else ""
        return f"{self.throughput:.1f}/s, p50 {self.p50:.0f}, p95 {self.p95:.0f}, p99 {self.p99:.0f} ms{late}"


COLUMNS = tuple(field.name for field in fields(Measurement))


def read_measurement(
    folder: Path,
    *,
    through: Through,
    load: Load,
    network: str,
    before: DecodingTime | None = None,
    after: DecodingTime | None = None,
) -> Measurement:
    """From the files of one run: table.csv, said.txt, errors.txt.

    Args:
        network: the name of the ensemble's network.
        before, after: decoders' totals, if they are known.
    """
    said, errors = (folder / "said.txt").read_text(), (folder / "errors.txt").read_text()
    table = folder / "table.csv"
    rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
    refusal = _REFUSAL.search(errors)
    if refusal or len(rows) != 1 or _SERVER not in said:
        return Measurement(through, load.mode, load.value, failure=_explain(refusal, errors))
    row = rows[0]
    windows = [float(value) for value in _WINDOW.findall(said)]
    steady = windows[1:] or windows or [float(row["Inferences/Second"])]
    decoding = after.mean_milliseconds_since(before) if before and after else None
    server, steps = _read_server(said)
    total = sum(float(row[name]) for name in PARTS) / 1000
    return Measurement(
        through,
        load.mode,
        load.value,
        throughput=mean(steady),
        spread=max(steady) / min(steady) - 1 if min(steady) > 0 else None,
        **{f"p{number}": float(row[f"p{number} latency"]) / 1000 for number in PERCENTILES},  # type: ignore[arg-type]
        mean=total,
        **_split(through, server, steps, network, decoding),  # type: ignore[arg-type]
        outside=max(total - server.latency, 0.0),
        compute_input=float(row["Server Compute Input"]) / 1000,
        compute_infer=float(row["Server Compute Infer"]) / 1000,
        compute_output=float(row["Server Compute Output"]) / 1000,
        requests=int(match[1]) if (match := _REQUESTS.search(said)) else 0,
        delayed=float(match[1]) if (match := _DELAYED.search(said + errors)) else 0.0,
        gpu=row.get("Avg GPU Utilization") or "",
    )


def _split(
    through: Through, server: StepTimes, steps: dict[str, StepTimes], network: str, decoding: float | None
) -> dict[str, float | None]:
    """Queue, decode and model: together they are what the server takes."""
    if through == "net":
        return {"queue": server.latency - server.compute, "model": server.compute, "batch": server.batch}
    net = steps.get(network)
    model = net.compute if net else None
    rest = server.latency - (model or 0.0)
    waiting = sum(step.queue for step in steps.values())
    decode = min(decoding, rest) if decoding is not None else max(rest - waiting, 0.0)
    return {"queue": rest - decode, "decode": decode, "model": model, "batch": net.batch if net else None}


def _read_server(said: str) -> tuple[StepTimes, dict[str, StepTimes]]:
    """Of the model that was asked, and of its steps by name."""
    whole, _, parts = said.partition(_SERVER)[2].partition(_STEPS)
    pieces = _STEP.split(parts)[1:]
    return _read_times(whole), {name: _read_times(text) for name, text in zip(pieces[::2], pieces[1::2], strict=True)}


def _read_times(text: str) -> StepTimes:
    latency, counts = _LATENCY.search(text), _COUNTS.search(text)
    if latency is None:
        return StepTimes(0.0, 0.0, 0.0, 0.0)
    compute = sum(map(int, _NUMBER.findall(latency[3])))
    inferences, executions = map(int, counts.groups()) if counts else (0, 0)
    return StepTimes(
        int(latency[1]) / 1000, int(latency[2]) / 1000, compute / 1000, inferences / executions if executions else 0.0
    )


def _explain(refusal: re.Match[str] | None, errors: str) -> str:
    """Why a run came to nothing, in its own words."""
    found = refusal or _ERROR.search(errors)
    return (
        found[1] if found else (errors.strip().splitlines() or ["perf_analyzer ended without a result"])[-1]
    ).strip()
