"""Callers of a real server that classify without a pause, while a test changes its models."""

import threading
from collections import Counter
from pathlib import Path

from clipserve import VideoClassifier
from clipserve.errors import ClipserveError
from tests.watching import wait_for

CALLERS = 3
# Of Triton, when one of its processes gets no time for a second: on a busy machine, whatever a test does.
NO_TIME = "is not healthy"


class Crowd:
    """Classify one video with `motion` again and again, and try nothing twice.

    Attributes:
        answers: how often each label came.
        failures: the errors, without those of a busy machine.
    """

    def __init__(self, url: str, video: Path) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[ClipserveError] = []
        self._url, self._video, self._over = url, video, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with VideoClassifier("motion", self._url) as classifier:
            while not self._over.is_set():
                try:
                    self.answers[classifier.classify(self._video).top.label] += 1
                except ClipserveError as error:
                    if NO_TIME not in str(error):
                        self.failures.append(error)

    def more(self, label: str, count: int = 20) -> bool:
        """Whether that many more get this answer before long."""
        before = self.answers[label]
        return wait_for(lambda: self.answers[label] >= before + count)
