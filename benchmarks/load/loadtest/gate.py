"""The accuracy gate: under load a video must get the answer that it gets when the server has nothing else to do."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clipserve import ClipserveError, Prediction, VideoClassifier
from loadtest.errors import LoadTestError

ALL_LABELS = 10**6
CLIENTS = 2
DIGITS = 7  # one more than scores are written with
PAUSE_SECONDS = 0.2  # after a failure
PATIENT_SECONDS = 120.0  # for one answer under load; a full queue is waited for


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison.

    Attributes:
        answers: given under load and compared.
        difference: the largest between a score unloaded and under load; of all labels of all videos.
        tolerance: what of it is allowed.
        changed: videos whose best label was another under load.
        failures: videos that got no answer under load, and why.
        loaded: whether the load lasted as long as the comparison.
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
        start = "accuracy gate passed" if self.passed else "ACCURACY GATE FAILED"
        text = f"{start}: {self.answers} answers under load, scores differ by at most {self.difference:.1e}"
        text += f" ({self.tolerance:g} allowed), best label changed for {len(self.changed)}"
        if not self.loaded:
            text += "; perf_analyzer failed meanwhile, so that there was no load"
        return "; ".join([text, *self.failures[:3]])


Answers = Mapping[Path, Prediction]


def ask_unloaded(classifier: VideoClassifier, videos: Sequence[Path]) -> Answers:
    """One answer for each video, one at a time, with its report; a few before that warm the server up.

    Raises:
        LoadTestError: a video gets no answer.
    """
    try:
        for video in videos[:2]:
            classifier.classify(video, timeout_seconds=PATIENT_SECONDS)
        return {video: classifier.classify(video, top_k=ALL_LABELS, report=True) for video in videos}
    except ClipserveError as error:
        raise LoadTestError(f"without any load already: {error}") from error


def ask_loaded(
    classifier: VideoClassifier,
    unloaded: Answers,
    over: threading.Event,
    covered: threading.Event,
    *,
    tolerance: float,
    clients: int = CLIENTS,
) -> Verdict:
    """Ask again from several threads, round after round, until `over`; sets `covered` when each video had its turn."""
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
            if over.is_set():
                return
            video = videos[number % len(videos)]
            try:
                answer = classifier.classify(video, top_k=ALL_LABELS, retry=True, timeout_seconds=PATIENT_SECONDS)
            except ClipserveError as error:
                with lock:
                    failures[f"{video.name}: {error}"] = None
                over.wait(PAUSE_SECONDS)
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
            over.set()  # Ctrl-C, too: what leaves the block waits for the threads
            raise
    return Verdict(answers, difference, tolerance, tuple(changed), tuple(failures))


def largest_difference(one: Prediction, other: Prediction) -> float:
    """Between the scores of the same labels; infinite where the labels are not the same ones."""
    first, second = ({scored.index: scored.score for scored in answer} for answer in (one, other))
    if first.keys() != second.keys():
        return float("inf")
    return round(max(abs(score - second[index]) for index, score in first.items()), DIGITS)
