"""One row of the results: read from perf_analyzer's table (-f), its output, and the server's metrics.

The table has no averages for the steps of an ensemble, and the output has no compute times of the client: both are
needed. Triton's statistics do not see decoding: the decode step hands each video to a pool of processes and answers
later, so Triton counts only the time to hand it over. The decode step's own metrics have it.
"""

import csv
import http.client
import re
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean

from clipserve.loadtest.load_levels import LatencyLimit, LoadLevel, Through
from clipserve.proxies import Proxies

# Columns of the table that make up the latency that the client sees, in microseconds.
PARTS = (
    *("Client Send", "Network+Server Send/Recv", "Server Queue", "Server Compute Input", "Server Compute Infer"),
    *("Server Compute Output", "Client Recv"),
)
PERCENTILES = (50, 90, 95, 99)
METRICS_TIMEOUT_SECONDS = 5.0

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
_DECODE_SECONDS = re.compile(r"^clipserve_decode_seconds_(sum|count)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class DecodeTime:
    """Totals of the decoders since the server started: seconds of work, and videos."""

    seconds: float
    videos: float

    def mean_milliseconds_since(self, earlier: "DecodeTime") -> float | None:
        """The mean over the videos decoded since `earlier`; None if there were none."""
        videos = self.videos - earlier.videos
        return 1000 * (self.seconds - earlier.seconds) / videos if videos > 0 else None


def read_decode_time(metrics_url: str | None) -> DecodeTime | None:
    """Read the totals; None where the metrics cannot be read or do not have them."""
    text = _fetch(metrics_url) if metrics_url else None
    return None if text is None else parse_decode_time(text)


def can_read(metrics_url: str) -> bool:
    """Whether the metrics can be read."""
    return _fetch(metrics_url) is not None


def _fetch(metrics_url: str) -> str | None:
    try:
        with urllib.request.build_opener(Proxies).open(metrics_url, timeout=METRICS_TIMEOUT_SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except (OSError, ValueError, http.client.HTTPException):  # such as another port of the server, or no number
        return None


def parse_decode_time(text: str) -> DecodeTime | None:
    """Parse Prometheus' text format."""
    found = {name: float(value) for name, value in _DECODE_SECONDS.findall(text)}
    return DecodeTime(found["sum"], found["count"]) if found.keys() == {"sum", "count"} else None


@dataclass(frozen=True)
class StepTimes:
    """Triton's statistics of one model, in milliseconds a request."""

    latency: float
    queue: float
    compute: float
    batch: float


@dataclass(frozen=True)
class Measurement:
    """One row of the results. Times in milliseconds; None: not measured, or not a part of this target.

    Attributes:
        throughput: answers a second, the mean over perf_analyzer's windows except the first, its start-up.
        spread: largest throughput of these windows over the smallest, less 1.
        mean: latency that the client sees; the sum of queue, decode, model and outside.
        queue: waiting in the server for a step; where the decode time is known, also for a decoder.
        decode: decoding; where the decode time is not known, it includes waiting for a decoder.
        model: the network, with the transfer of its tensors.
        outside: what the client sees and the server does not: gRPC and the network between them.
        batch: mean batch size of the network.
        delayed: percent of the requests that perf_analyzer sent too late.
        failure: why there are no numbers; perf_analyzer stops at the first request that fails.
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
        """The latency at one of PERCENTILES, in milliseconds."""
        value: float | None = getattr(self, f"p{number}")
        return value

    def meets(self, limit: LatencyLimit) -> bool:
        """Whether the server carried this load within the limit."""
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
    level: LoadLevel,
    network: str,
    before: DecodeTime | None = None,
    after: DecodeTime | None = None,
) -> Measurement:
    """Read the files of one run: table.csv, stdout.txt, stderr.txt.

    Args:
        network: the name of the ensemble's network.
        before, after: the decoders' totals around the run, where they are known.
    """
    stdout, stderr = (folder / "stdout.txt").read_text(), (folder / "stderr.txt").read_text()
    table = folder / "table.csv"
    rows = list(csv.DictReader(table.read_text().splitlines())) if table.exists() else []
    refusal = _REFUSAL.search(stderr)
    if refusal or len(rows) != 1 or _SERVER not in stdout:
        return Measurement(through, level.mode, level.value, failure=_find_reason(refusal, stderr))
    row = rows[0]
    windows = [float(value) for value in _WINDOW.findall(stdout)]
    steady = windows[1:] or windows or [float(row["Inferences/Second"])]
    decoding = after.mean_milliseconds_since(before) if before and after else None
    server, steps = _read_server(stdout)
    total = sum(float(row[name]) for name in PARTS) / 1000
    return Measurement(
        through,
        level.mode,
        level.value,
        throughput=mean(steady),
        spread=max(steady) / min(steady) - 1 if min(steady) > 0 else None,
        **{f"p{number}": float(row[f"p{number} latency"]) / 1000 for number in PERCENTILES},  # type: ignore[arg-type]
        mean=total,
        **_split(through, server, steps, network, decoding),  # type: ignore[arg-type]
        outside=max(total - server.latency, 0.0),
        compute_input=float(row["Server Compute Input"]) / 1000,
        compute_infer=float(row["Server Compute Infer"]) / 1000,
        compute_output=float(row["Server Compute Output"]) / 1000,
        requests=int(match[1]) if (match := _REQUESTS.search(stdout)) else 0,
        delayed=float(match[1]) if (match := _DELAYED.search(stdout + stderr)) else 0.0,
        gpu=row.get("Avg GPU Utilization") or "",
    )


def _split(
    through: Through, server: StepTimes, steps: dict[str, StepTimes], network: str, decoding: float | None
) -> dict[str, float | None]:
    """Split the server's latency into queue, decode and model."""
    if through == "net":
        return {"queue": server.latency - server.compute, "model": server.compute, "batch": server.batch}
    net = steps.get(network)
    model = net.compute if net else None
    rest = server.latency - (model or 0.0)
    waiting = sum(step.queue for step in steps.values())
    decode = min(decoding, rest) if decoding is not None else max(rest - waiting, 0.0)
    return {"queue": rest - decode, "decode": decode, "model": model, "batch": net.batch if net else None}


def _read_server(stdout: str) -> tuple[StepTimes, dict[str, StepTimes]]:
    """Read the times of the model that was called, and of its steps by name."""
    whole, _, parts = stdout.partition(_SERVER)[2].partition(_STEPS)
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


def _find_reason(refusal: re.Match[str] | None, stderr: str) -> str:
    """Find perf_analyzer's own message about a failed run."""
    found = refusal or _ERROR.search(stderr)
    return (
        found[1] if found else (stderr.strip().splitlines() or ["perf_analyzer ended without a result"])[-1]
    ).strip()
