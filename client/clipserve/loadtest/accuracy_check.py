"""The accuracy check: under load a video must get the same answer as without load."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clipserve import ClipserveError, Prediction, VideoClassifier
from clipserve.loadtest.load_levels import LoadTestError

ALL_LABELS = 10**6
CLIENTS = 2
DIGITS = 7  # one more than scores have
FAILURE_PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 120.0  # for one answer under load, retries while the queue is full included


@dataclass(frozen=True)
class AccuracyResult:
    """The result of the comparison.

    Attributes:
        answers: number of answers under load that were compared.
        difference: largest difference between a score without and under load, over all labels of all videos.
        tolerance: the largest difference that is allowed.
        changed: videos whose best label changed under load.
        failures: videos that got no answer under load, each with the reason.
        loaded: whether perf_analyzer kept up the load for the whole comparison.
    """

    answers: int
    difference: float
    tolerance: float
    changed: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    loaded: bool = True

    @property
    def passed(self) -> bool:
        return self.loaded and not self.changed and not self.failures and self.difference <= self.tolerance

    def __str__(self) -> str:
        start = "accuracy check passed" if self.passed else "ACCURACY CHECK FAILED"
        text = f"{start}: {self.answers} answers under load, scores differ by at most {self.difference:.1e}"
        text += f" ({self.tolerance:g} allowed), best label changed for {len(self.changed)}"
        if not self.loaded:
            text += "; perf_analyzer failed during the check, so there was no load"
        return "; ".join([text, *self.failures[:3]])


Answers = Mapping[Path, Prediction]


def classify_unloaded(classifier: VideoClassifier, videos: Sequence[Path]) -> Answers:
    """Classify each video with its report, one request at a time, after two requests of warm-up.

    Raises:
        LoadTestError: a video gets no answer.
    """
    try:
        for video in videos[:2]:
            classifier.classify(video, timeout_seconds=TIMEOUT_SECONDS)
        return {video: classifier.classify(video, top_k=ALL_LABELS, report=True) for video in videos}
    except ClipserveError as error:
        raise LoadTestError(f"the server does not answer even without load: {error}") from error


def classify_loaded(
    classifier: VideoClassifier,
    unloaded: Answers,
    stop: threading.Event,
    covered: threading.Event,
    *,
    tolerance: float,
    clients: int = CLIENTS,
) -> AccuracyResult:
    """Classify the videos again from several threads until `stop` is set, and compare the answers.

    Sets `covered` when every video had its turn.
    """
    videos, numbers = list(unloaded), count()
    lock = threading.Lock()
    answers, difference = 0, 0.0
    changed: dict[str, None] = {}
    failures: dict[str, None] = {}

    def work() -> None:
        nonlocal answers, difference
        while True:
            number = next(numbers)
            if number >= len(videos):
                covered.set()
            if stop.is_set():
                return
            video = videos[number % len(videos)]
            try:
                answer = classifier.classify(video, top_k=ALL_LABELS, retry=True, timeout_seconds=TIMEOUT_SECONDS)
            except ClipserveError as error:
                with lock:
                    failures[f"{video.name}: {error}"] = None
                stop.wait(FAILURE_PAUSE_SECONDS)
                continue
            found = largest_difference(unloaded[video], answer)
            with lock:
                answers, difference = answers + 1, max(difference, found)
                if answer.top.label != unloaded[video].top.label:
                    changed[video.name] = None

    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work) for _ in range(clients)]
        try:
            for client in working:
                client.result()
        except BaseException:
            stop.set()  # on Ctrl-C too: leaving the block waits for the threads
            raise
    return AccuracyResult(answers, difference, tolerance, tuple(changed), tuple(failures))


def largest_difference(one: Prediction, other: Prediction) -> float:
    """The largest difference between scores of the same label; infinite where the labels differ."""
    first, second = ({scored.index: scored.score for scored in answer} for answer in (one, other))
    if first.keys() != second.keys():
        return float("inf")
    return round(max(abs(score - second[index]) for index, score in first.items()), DIGITS)
