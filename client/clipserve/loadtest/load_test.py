"""A load test from the first request to the last: the runs in order, and their results."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

from clipserve import VideoClassifier
from clipserve.loadtest.accuracy_check import AccuracyResult, Answers, classify_loaded, classify_unloaded
from clipserve.loadtest.inputs import write_clips, write_videos
from clipserve.loadtest.load_levels import LatencyLimit, LoadLevel, SearchResult, Through, search_rate
from clipserve.loadtest.measurements import Measurement, read_decode_time, read_measurement
from clipserve.loadtest.perf_analyzer import PerfAnalyzer, RunSettings, build_command, run_perf_analyzer
from clipserve.loadtest.server import Server

OVERHEAD_SECONDS = 1.5  # of a run beside its windows; an estimate until the first run has ended
# Rates of the open loop where none are given, and the range of the search: shares of the highest closed throughput.
SHARES = (0.25, 0.5, 0.75, 0.9)
LOWEST_SHARE, HIGHEST_SHARE = 0.1, 1.25
MAX_CLIPS = 32
MIN_AGREEMENT = 0.5  # of the decode time by the metrics with the decode time in the answers' reports

Say = Callable[[str], None]


@dataclass(frozen=True)
class LoadTestPlan:
    """What to measure.

    Attributes:
        concurrencies: requests in flight, for the closed loop.
        rates: requests a second, for the open loop; None: SHARES of the highest closed throughput.
        limit: the search looks for the highest rate within it.
        search_steps: bisections of the search; 0: no search.
        tolerance: the largest difference of scores that the accuracy check allows.
    """

    videos: Sequence[Path]
    through: Sequence[Through]
    concurrencies: Sequence[float]
    rates: Sequence[float] | None
    limit: LatencyLimit
    search_steps: int
    tolerance: float
    settings: RunSettings

    @property
    def max_runs(self) -> int:
        """Runs of perf_analyzer, the accuracy check included; the search may need fewer."""
        rates = len(SHARES) if self.rates is None else len(self.rates)
        search = self.search_steps + 2 if self.search_steps and "ensemble" in self.through else 0
        return len(self.through) * (len(self.concurrencies) + rates) + search + 1


@dataclass
class LoadTestResults:
    """The results so far.

    Attributes:
        decode_time_known: the server's metrics have the decode time, so waiting for a decoder can be told apart.
    """

    measurements: list[Measurement] = field(default_factory=list)
    search: SearchResult | None = None
    accuracy: AccuracyResult | None = None
    decode_time_known: bool = False


@dataclass
class LoadTest:
    """One load test. `run` fills `results`, which keeps what was measured before an interrupt."""

    analyzer: PerfAnalyzer
    server: Server
    plan: LoadTestPlan
    folder: Path
    say: Say
    results: LoadTestResults = field(default_factory=LoadTestResults)
    _runs: int = 0
    _unloaded_seconds: float = 0.0  # latency of a request without other load
    _started: float = field(default_factory=time.monotonic)
    _targets: Mapping[Through, tuple[str, Path]] = field(default_factory=dict)  # model and input file

    def run(self) -> None:
        """Measure everything in the plan. Raises LoadTestError."""
        plan = self.plan
        with self.server.open_classifier() as classifier, self._prepare():
            self.say(f"classifying {len(plan.videos)} videos without load")
            unloaded = self._classify_unloaded(classifier)
            self._started = time.monotonic()
            for through in plan.through:
                closed = [self.measure(through, LoadLevel("closed", value)) for value in plan.concurrencies]
                best = max((found.throughput or 0.0 for found in closed), default=0.0)
                rates = plan.rates if plan.rates is not None else [round(best * share, 2) for share in SHARES if best]
                for rate in rates:
                    self.measure(through, LoadLevel("open", rate))
                if through == "ensemble" and plan.search_steps:
                    self._search(best)
            self.results.accuracy = self._check_accuracy(classifier, unloaded)

    def _classify_unloaded(self, classifier: VideoClassifier) -> Answers:
        """Classify without load; find out whether the metrics agree with the decode times that the answers report."""
        before = read_decode_time(self.server.metrics_url)
        started = time.monotonic()
        unloaded = classify_unloaded(classifier, self.plan.videos)
        self._unloaded_seconds = (time.monotonic() - started) / len(unloaded)
        after = read_decode_time(self.server.metrics_url)
        counted = after.mean_milliseconds_since(before) if before and after else None
        reported = mean(float((answer.report or {}).get("decode_milliseconds", 0)) for answer in unloaded.values())
        self.results.decode_time_known = counted is not None and counted >= MIN_AGREEMENT * reported
        if self.server.metrics_url and not self.results.decode_time_known:
            told = "no decode time" if counted is None else f"a decode time of {counted:.1f} ms a video"
            self.say(
                f"the metrics at {self.server.metrics_url} have {told}, the answers report {reported:.1f} ms:"
                " the results show decoding together with waiting for a decoder"
            )
        return unloaded

    def measure(self, through: Through, level: LoadLevel) -> Measurement:
        """Run perf_analyzer once; adds a row to the results."""
        self._announce(f"{through}, {level}")
        measurement = self._run(through, level, f"{through}-{level.slug}")
        self.results.measurements.append(measurement)
        self.say(f"      {measurement}")
        return measurement

    def _search(self, best: float) -> None:
        """Search between shares of `best`, the highest closed throughput; without one, of the highest open rate."""
        limit, known = self.plan.limit, {}
        for measurement in self.results.measurements:
            if measurement.through == "ensemble" and measurement.mode == "open":
                known[measurement.load] = measurement
        highest = best or max(known, default=0.0)
        if not highest:
            self.say("no search for the highest rate: every run failed")
            return

        def meets(rate: float) -> bool:
            # Below a rate that meets the limit there is nothing to measure; low rates would take the longest.
            if rate < max_met:
                return True
            if rate not in known:
                known[rate] = self.measure("ensemble", LoadLevel("open", rate))
            return known[rate].meets(limit)

        max_met = max((rate for rate, found in known.items() if found.meets(limit)), default=0.0)
        low, high = round(highest * LOWEST_SHARE, 2) or 0.01, round(highest * HIGHEST_SHARE, 2)
        self.results.search = search_rate(meets, limit, low=low, high=max(high, max_met), steps=self.plan.search_steps)
        self.say(str(self.results.search))

    def _check_accuracy(self, classifier: VideoClassifier, unloaded: Answers) -> AccuracyResult:
        """Compare answers under the highest closed load that succeeded. Its throughput is not a result."""
        succeeded = [
            found.load
            for found in self.results.measurements
            if (found.through, found.mode, found.failure) == ("ensemble", "closed", "")
        ]
        level = LoadLevel("closed", max(succeeded, default=min(self.plan.concurrencies)))
        self._announce(f"accuracy check, ensemble, {level}")
        stop, covered = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            checking = pool.submit(classify_loaded, classifier, unloaded, stop, covered, tolerance=self.plan.tolerance)
            try:
                failed = bool(self._run("ensemble", level, "accuracy-check").failure)
                while not (failed or covered.is_set() or checking.done()):
                    failed = bool(self._run("ensemble", level, "accuracy-check").failure)
            finally:
                stop.set()
            result = replace(checking.result(), loaded=not failed)
        self.say(str(result))
        return result

    def _run(self, through: Through, level: LoadLevel, name: str) -> Measurement:
        self._runs += 1
        folder = self.folder / "raw" / f"{self._runs:02}-{name}"
        model, inputs = self._targets[through]
        settings = self.plan.settings.stretched(level, self._unloaded_seconds)
        command = build_command(self.analyzer, self.server, settings, level, model=model, inputs=inputs, folder=folder)
        metrics_url = self.server.metrics_url if self.results.decode_time_known else None
        before = read_decode_time(metrics_url)
        run_perf_analyzer(command, self.analyzer.environment, folder, level=level, seconds=settings.seconds)
        after = read_decode_time(metrics_url)
        network = self.server.steps.network
        return read_measurement(folder, through=through, level=level, network=network, before=before, after=after)

    def _announce(self, what: str) -> None:
        """Say which run of how many begins, and about how long the rest takes."""
        total = max(self.plan.max_runs, self._runs + 1)
        took = time.monotonic() - self._started
        each = took / self._runs if self._runs else self.plan.settings.seconds + OVERHEAD_SECONDS
        left = each * (total - self._runs)
        self.say(f"[{self._runs + 1}/{total}] {what}; about {left // 60:.0f}:{left % 60:02.0f} left")

    @contextmanager
    def _prepare(self) -> Iterator[None]:
        """Write the inputs and load the model that only decodes; remove both after the block."""
        steps, inputs = self.server.steps, self.folder / "inputs"
        videos, clips = inputs / "videos.json", inputs / "clips.json"
        targets: dict[Through, tuple[str, Path]] = {"ensemble": (self.server.model, videos)}
        with ExitStack() as stack:
            stack.callback(_remove, inputs)
            written = write_videos(videos, self.plan.videos)
            if written < len(self.plan.videos):
                self.say(f"perf_analyzer sends the first {written} videos: more would not fit into its memory")
            if "decode" in self.plan.through:
                targets["decode"] = (stack.enter_context(self.server.decode_only_model()), videos)
            if "net" in self.plan.through:
                decoded = (self.server.decode(video) for video in self.plan.videos[:MAX_CLIPS])
                write_clips(clips, steps.network_input, decoded)
                targets["net"] = (steps.network, clips)
            self._targets = targets
            yield


def _remove(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    if folder.exists():
        folder.rmdir()
