"""The networks that timelines call, and how many windows share one of their runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from clip_decode.errors import Busy, Failed
from clip_decode.windows import WindowClips

from .config import ServedNetwork
from .shared_runs import SharedRuns

SCORES, FEATURES = "SCORES", "FEATURES"
# What Triton 2.51 says of a network that may run the clips later: its process showed no sign of life for a second, as
# where other processes take all cores, or shared memory has no room. Clients know these words of single requests.
PASSING = ("is not healthy", "Failed to increase the shared memory pool size")
Answers = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Label:
    """A class with its score in one window."""

    score: float
    number: int
    name: str


class Network:
    """A network, called from the threads of all timelines.

    Args:
        served: its config.
        repository: the folder of the models.
        run_milliseconds: how long a run may take before fewer windows share it.
    """

    def __init__(self, served: ServedNetwork, repository: Path, run_milliseconds: int) -> None:
        self.served = served
        self._labels_file = repository / served.network / "labels.txt"
        self._budget = run_milliseconds / 1000
        # As many runs at one time as the network has instances: whoever asks for a single clip waits for one run of
        # timelines, however many timelines there are.
        self._turns = threading.Semaphore(served.instances)
        self._shared_runs: dict[int, SharedRuns] = {}

    def shared_runs(self, clips: int) -> SharedRuns:
        """How many windows with so many clips share a run."""
        return self._shared_runs.setdefault(clips, SharedRuns(self.served.max_batch, self._budget))

    def is_ready(self, version: int) -> bool:
        """Whether Triton has loaded it."""
        ready: bool = pb_utils.is_model_ready(self.served.network, "" if version < 0 else str(version))
        return ready

    def read_labels(self) -> list[str]:
        """The names of its classes; an empty list where the model has no file of them.

        As Triton reads them: only a line feed ends a line, and the text is UTF-8 whatever the locale is.
        """
        try:
            return self._labels_file.read_bytes().decode(errors="replace").split("\n")
        except OSError:
            return []

    def run(self, windows: Sequence[WindowClips], outputs: Sequence[str], version: int) -> Answers:
        """The answers for some windows, float32 [windows, ...] by output: to the bit those that each gets alone.

        Raises:
            Busy: the network, or the room for its clips, is gone for now.
            Failed: the network cannot run them.
        """
        shared = self.shared_runs(len(windows[0].clips))
        if shared.take_trial(len(windows)):
            together, _ = self._run_once(windows, outputs, version)
            alone = _join([self._run_once([window], outputs, version)[0] for window in windows])
            shared.end_trial(
                len(windows), is_equal=all(np.array_equal(together[name], alone[name]) for name in outputs)
            )
            return alone
        parts, left = [], list(windows)
        while left:
            size = shared.size_for(len(left))
            answers, seconds = self._run_once(left[:size], outputs, version)
            parts.append(answers)
            shared.observe(size, seconds)
            left = left[size:]
        return _join(parts)

    def _run_once(self, windows: Sequence[WindowClips], outputs: Sequence[str], version: int) -> tuple[Answers, float]:
        """The answers, and the seconds that they took, without the wait for other timelines."""
        clips = pb_utils.Tensor("CLIP", np.stack([window.clips for window in windows]))
        request = pb_utils.InferenceRequest(
            model_name=self.served.network,
            model_version=version,
            requested_output_names=list(outputs),
            inputs=[clips],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        with self._turns:
            started = time.monotonic()
            try:
                response = request.exec()
            except Exception as error:
                raise Busy(f"the clips cannot be given to the network ({error}); try again later") from error
            seconds = time.monotonic() - started
        if response.has_error():
            text = response.error().message()
            pb_utils.Logger.log_error(f"{self.served.network}: {text}")
            if any(words in text for words in PASSING):
                raise Busy(f"the clips cannot be given to the network ({text}); try again later")
            if not self.is_ready(version):
                raise Busy(f"the network {self.served.network} is not loaded any more; try again later")
            raise Failed(f"the network {self.served.network} could not run the clips; the server's log says why")
        return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in outputs}, seconds


def _join(parts: Sequence[Answers]) -> Answers:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def best_labels(scores: npt.NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[Label]:
    """The classes with the best scores of one window, the best first; of equal ones the lower number first."""
    best = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Label(float(scores[number]), number, labels[number] if number < len(labels) else "") for number in best]
