"""A load test from the first request to the last: what is run in which order, and what came of it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from clipserve import VideoClassifier
from loadtest.analyzer import Analyzer
from loadtest.decoding_time import read_decoding_time
from loadtest.gate import Answers, Verdict, ask_loaded, ask_unloaded
from loadtest.inputs import write_clips, write_videos
from loadtest.loads import Limit, Load, Through
from loadtest.measurements import Measurement, read_measurement
from loadtest.runs import Settings, build_command, run_analyzer
from loadtest.search import Found, search_rate
from loadtest.server import Server

OVERHEAD_SECONDS = 1.5  # of a run of perf_analyzer beside its windows, until the first has told
# Open loads where none are given, and the range of the search: shares of the highest closed throughput.
SHARES = (0.25, 0.5, 0.75, 0.9)
LOWEST_SHARE, HIGHEST_SHARE = 0.1, 1.25
MOST_CLIPS = 32
LEAST_AGREEMENT = 0.5  # of decoding time by the metrics with that by the answers' reports

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        concurrencies: of the closed loop.
        rates: of the open loop; None: SHARES of what the closed loop reached.
        halvings: of the search for the highest rate within `limit`; 0: no search.
        tolerance: of the accuracy gate.
    """

    videos: Sequence[Path]
    through: Sequence[Through]
    concurrencies: Sequence[float]
    rates: Sequence[float] | None
    limit: Limit
    halvings: int
    tolerance: float
    settings: Settings

    @property
    def most_steps(self) -> int:
        """Runs of perf_analyzer, the gate's included; the search may need fewer."""
        rates = len(SHARES) if self.rates is None else len(self.rates)
        search = self.halvings + 2 if self.halvings and "ensemble" in self.through else 0
        return len(self.through) * (len(self.concurrencies) + rates) + search + 1


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        decoding_is_known: the server's metrics count the decoders' work, so that waiting for one is told apart.
    """

    measurements: list[Measurement] = field(default_factory=list)
    found: Found | None = None
    verdict: Verdict | None = None
    decoding_is_known: bool = False


@dataclass
class Campaign:
    """One load test. `run` fills `results`, which hold what there is when it is interrupted."""

    analyzer: Analyzer
    server: Server
    plan: Plan
    folder: Path
    say: Say
    results: Results = field(default_factory=Results)
    _step: int = 0
    _alone_seconds: float = 0.0  # of a request when there is no other
    _started: float = field(default_factory=time.monotonic)
    _targets: Mapping[Through, tuple[str, Path]] = field(default_factory=dict)

    def run(self) -> None:
        """Measure it all. Raises LoadTestError."""
        plan = self.plan
        with self.server.open_classifier() as classifier, self._prepare():
            self.say(f"classifying {len(plan.videos)} videos without load")
            unloaded = self._ask_unloaded(classifier)
            self._started = time.monotonic()
            for through in plan.through:
                closed = [self.measure(through, Load("closed", value)) for value in plan.concurrencies]
                best = max((found.throughput or 0.0 for found in closed), default=0.0)
                rates = plan.rates if plan.rates is not None else [round(best * share, 2) for share in SHARES if best]
                for rate in rates:
                    self.measure(through, Load("open", rate))
                if through == "ensemble" and plan.halvings:
                    self._search(best)
            self.results.verdict = self._compare(classifier, unloaded)

    def _ask_unloaded(self, classifier: VideoClassifier) -> Answers:
        """Answers, and whether the metrics count decoding as the answers' own reports do."""
        before = read_decoding_time(self.server.metrics_url)
        started = time.monotonic()
        unloaded = ask_unloaded(classifier, self.plan.videos)
        self._alone_seconds = (time.monotonic() - started) / len(unloaded)
        after = read_decoding_time(self.server.metrics_url)
        counted = after.mean_milliseconds_since(before) if before and after else None
        reported = mean(float((answer.report or {}).get("decode_milliseconds", 0)) for answer in unloaded.values())
        self.results.decoding_is_known = counted is not None and counted >= LEAST_AGREEMENT * reported
        if self.server.metrics_url and not self.results.decoding_is_known:
            told = "nothing" if counted is None else f"{counted:.1f} ms a video"
            self.say(
                f"the metrics at {self.server.metrics_url} tell {told} of decoding, the answers {reported:.1f} ms:"
                " decoding is shown together with the wait for a decoder"
            )
        return unloaded

    def measure(self, through: Through, load: Load) -> Measurement:
        """One run, as a row of the results."""
        self._announce(f"{through}, {load}")
        measurement = self._run(through, load, f"{through}-{load.slug}")
        self.results.measurements.append(measurement)
        self.say(f"      {measurement}")
        return measurement

    def _search(self, best: float) -> None:
        """Between shares of the highest closed throughput; of the highest open load, where that did not succeed."""
        limit, known = self.plan.limit, {}
        for measurement in self.results.measurements:
            if measurement.through == "ensemble" and measurement.mode == "open":
                known[measurement.load] = measurement
        highest = best or max(known, default=0.0)
        if not highest:
            self.say("there is no highest rate to search for: no load succeeded")
            return

        def meets(rate: float) -> bool:
            if rate not in known:
                known[rate] = self.measure("ensemble", Load("open", rate))
            return known[rate].meets(limit)

        low, high = round(highest * LOWEST_SHARE, 2) or 0.01, round(highest * HIGHEST_SHARE, 2)
        self.results.found = search_rate(meets, limit, low=low, high=high, halvings=self.plan.halvings)
        self.say(str(self.results.found))

    def _compare(self, classifier: VideoClassifier, unloaded: Answers) -> Verdict:
        """The gate, under the highest closed load that succeeded; its own figures count for nothing."""
        carried = [
            found.load
            for found in self.results.measurements
            if (found.through, found.mode, found.failure) == ("ensemble", "closed", "")
        ]
        load = Load("closed", max(carried, default=min(self.plan.concurrencies)))
        self._announce(f"accuracy gate, ensemble, {load}")
        over, covered = threading.Event(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask_loaded, classifier, unloaded, over, covered, tolerance=self.plan.tolerance)
            try:
                failed = bool(self._run("ensemble", load, "gate").failure)
                while not (failed or covered.is_set() or asking.done()):
                    failed = bool(self._run("ensemble", load, "gate").failure)
            finally:
                over.set()
            verdict = asking.result()
        verdict = Verdict(**{**vars(verdict), "loaded": not failed})
        self.say(str(verdict))
        return verdict

    def _run(self, through: Through, load: Load, name: str) -> Measurement:
        self._step += 1
        folder = self.folder / "raw" / f"{self._step:02}-{name}"
        model, inputs = self._targets[through]
        settings = self.plan.settings.stretched(load, self._alone_seconds)
        command = build_command(self.analyzer, self.server, settings, load, model=model, inputs=inputs, folder=folder)
        metrics_url = self.server.metrics_url if self.results.decoding_is_known else None
        before = read_decoding_time(metrics_url)
        run_analyzer(command, self.analyzer.environment, folder, load=load, seconds=settings.seconds)
        after = read_decoding_time(metrics_url)
        network = self.server.steps.network
        return read_measurement(folder, through=through, load=load, network=network, before=before, after=after)

    def _announce(self, what: str) -> None:
        """Which step of how many begins, and how long it all may still take."""
        total = max(self.plan.most_steps, self._step + 1)
        took = time.monotonic() - self._started
        each = took / self._step if self._step else self.plan.settings.seconds + OVERHEAD_SECONDS
        left = each * (total - self._step)
        self.say(f"[{self._step + 1}/{total}] {what}; about {left // 60:.0f}:{left % 60:02.0f} left")

    @contextmanager
    def _prepare(self) -> Iterator[None]:
        """Inputs are written, the model that only decodes is loaded; both go at the end."""
        steps, inputs = self.server.steps, self.folder / "inputs"
        videos, clips = inputs / "videos.json", inputs / "clips.json"
        targets: dict[Through, tuple[str, Path]] = {"ensemble": (self.server.model, videos)}
        with ExitStack() as stack:
            stack.callback(_remove, inputs)
            written = write_videos(videos, self.plan.videos)
            if written < len(self.plan.videos):
                self.say(f"perf_analyzer sends the first {written} videos: more would not fit into its memory")
            if "decode" in self.plan.through:
                targets["decode"] = (stack.enter_context(self.server.decoder_alone()), videos)
            if "net" in self.plan.through:
                decoded = (self.server.decode(video) for video in self.plan.videos[:MOST_CLIPS])
                write_clips(clips, steps.network_input, decoded)
                targets["net"] = (steps.network, clips)
            self._targets = targets
            yield


def _remove(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    if folder.exists():
        folder.rmdir()
