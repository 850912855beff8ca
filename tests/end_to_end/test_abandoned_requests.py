"""The server does not decode for a client that has gone, and refuses a request that would be answered too late.

What reaches the decode step of an ensemble is the request's `timeout`, which a client sets to the deadline of its call.
A cancellation does not: Triton 2.51 hands it on between two steps only (server issue 6739, core change 263).
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from clipserve import DeadlineExceeded, VideoClassifier
from clipserve_server.triton import Triton
from tests.motion_repository import change_config, set_parameters, video_input
from tests.watching import decode_workers, metric, wait_for

CLIP = "CLIP_8X8_64_64"
SECONDS = 2.0  # the timeout of requests that are late; on a busy machine, too, they come in before it passes
MICROSECONDS = int(SECONDS * 1e6)
HELD_NETWORK = """
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def read_seconds(self):
        try:
            return float((Path(__file__).parent / "go").read_text() or "0")
        except FileNotFoundError:
            return None

    def execute(self, requests):
        while (seconds := self.read_seconds()) is None:
            time.sleep(0.01)
        time.sleep(seconds)
        outputs = [pb_utils.Tensor("SCORES", np.zeros((1, 12), np.float32)),
                   pb_utils.Tensor("FEATURES", np.zeros((1, 192), np.float32))]
        return [pb_utils.InferenceResponse(outputs) for _ in requests]
"""


class Caller:
    """Sends one video again and again and notes the answers."""

    def __init__(self, url: str, video: Path) -> None:
        self._client = triton_grpc.InferenceServerClient(url)
        self._input = video_input(video.read_bytes())
        self.answers: dict[str, InferenceServerException | None] = {}

    def ask(self, name: str, *, model: str = "motion", output: str = "SCORES", **arguments: Any) -> Any:
        """Call `model`; `answers[name]` will be the error, or None. Gives what cancels the call."""

        def note(result: object, error: InferenceServerException | None) -> None:
            self.answers[name] = error

        outputs = [triton_grpc.InferRequestedOutput(output)]
        return self._client.async_infer(model, [self._input], note, outputs=outputs, **arguments)

    def cancel(self, call: Any) -> None:
        """Cancel a call, and return when the server has read that: it reads what comes by one connection in order."""
        call.cancel()
        assert self._client.is_server_live()
        time.sleep(0.3)  # until Triton's own thread has noted it


@contextmanager
def busy(triton: Triton, caller: Caller) -> Iterator[None]:
    """The only decode worker is held up at a video, and another one waits, while the block runs."""
    (pid,) = decode_workers(triton)
    os.kill(pid, signal.SIGSTOP)
    caller.ask("slow")
    caller.ask("next")
    assert wait_for(lambda: waiting(triton) == 1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def waiting(triton: Triton) -> float:
    return metric(triton, "clipserve_decode_waiting")


def decoded(triton: Triton, outcome: str) -> float:
    return metric(triton, f'clipserve_decode_total{{outcome="{outcome}"}}')


def run(triton: Triton) -> float:
    """The requests that the network has answered. Triton counts one after its answer has left."""
    return metric(triton, 'nv_inference_request_success{model="motion_net"')


def test_a_request_whose_timeout_passes_while_it_waits_is_not_decoded(
    serve: Callable[..., Triton], video: Path
) -> None:
    triton = serve(workers="1")
    caller = Caller(triton.grpc_url, video)
    with busy(triton, caller):
        # With a deadline, which ends the call on the client's side, and without one.
        caller.ask("gone", client_timeout=SECONDS, timeout=MICROSECONDS)
        caller.ask("late", timeout=MICROSECONDS)
        caller.ask("patient", timeout=500_000_000)
        assert wait_for(lambda: waiting(triton) == 4)
        time.sleep(SECONDS)
        assert wait_for(lambda: "gone" in caller.answers)
    assert wait_for(lambda: len(caller.answers) == 5)
    assert [caller.answers[name] for name in ("slow", "next", "patient")] == [None] * 3
    gone, late = caller.answers["gone"], caller.answers["late"]
    assert gone is not None
    assert gone.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert late is not None
    assert late.status() == "StatusCode.UNAVAILABLE"
    assert "[busy] decoding did not begin within 2 s" in late.message()
    assert wait_for(lambda: decoded(triton, "expired") == 2)
    assert decoded(triton, "ok") == 3


def test_the_client_sends_its_deadline_along(serve: Callable[..., Triton], video: Path) -> None:
    triton = serve(workers="1")
    caller = Caller(triton.grpc_url, video)
    with busy(triton, caller), VideoClassifier("motion", triton.grpc_url) as classifier:
        with pytest.raises(DeadlineExceeded):
            classifier.classify(video, timeout_seconds=SECONDS)
        assert wait_for(lambda: waiting(triton) == 2)
        time.sleep(SECONDS)
    assert wait_for(lambda: len(caller.answers) == 2)
    assert wait_for(lambda: decoded(triton, "expired") == 1)
    assert decoded(triton, "ok") == 2


def test_a_request_to_the_decode_step_itself_that_is_cancelled_is_not_decoded(
    serve: Callable[..., Triton], video: Path
) -> None:
    triton = serve(workers="1")
    caller = Caller(triton.grpc_url, video)
    with busy(triton, caller):
        cancelled = caller.ask("cancelled", model="decode", output=CLIP)
        caller.ask("deadline", model="decode", output=CLIP, client_timeout=SECONDS)
        assert wait_for(lambda: waiting(triton) == 3)
        assert wait_for(lambda: "deadline" in caller.answers)
        caller.cancel(cancelled)
    assert wait_for(lambda: len(caller.answers) == 4)
    assert wait_for(lambda: decoded(triton, "cancelled") == 2)
    assert decoded(triton, "ok") == 2


def test_a_request_to_a_model_that_is_cancelled_never_reaches_the_network(
    serve: Callable[..., Triton], video: Path
) -> None:
    triton = serve(workers="1")
    caller = Caller(triton.grpc_url, video)
    with busy(triton, caller):
        cancelled = caller.ask("cancelled")
        assert wait_for(lambda: waiting(triton) == 2)
        caller.cancel(cancelled)
    assert wait_for(lambda: len(caller.answers) == 3)
    refused = 'nv_inference_request_failure{model="motion_net",reason="CANCELED"'
    assert wait_for(lambda: metric(triton, refused) == 1)
    assert wait_for(lambda: run(triton) == 2)


@pytest.fixture
def go(motion_repository: Path) -> Path:
    """A network that runs nothing until this file is there, in place of `motion_net`; three may wait for it.

    The file may say how many seconds a run takes.
    """
    folder = motion_repository / "motion_net" / "1"
    (folder / "model.py").write_text(HELD_NETWORK)
    bound = {"networks": ["motion_net"], "requests": 3, "megabytes": 512}
    set_parameters(motion_repository, "decode", {f"QUEUE_{CLIP}": json.dumps(bound)})
    change_config(motion_repository, "motion", take_one)
    change_config(motion_repository, "motion_net", run_python)
    return folder / "go"


def take_one(config: ModelConfig) -> None:
    config.max_batch_size = 1


def run_python(config: ModelConfig) -> None:
    take_one(config)
    config.backend, config.default_model_filename = "python", "model.py"


def test_no_more_is_decoded_than_may_wait_for_the_network_and_the_rest_is_refused_or_expires(
    serve: Callable[..., Triton], video: Path, go: Path
) -> None:
    """Decoding is the faster step: clips would otherwise pile up, and be run when nobody waits for them any more."""
    triton = serve(workers="1", max_waiting="2")
    caller = Caller(triton.grpc_url, video)
    for number in range(1, 5):
        caller.ask(str(number))
        assert wait_for(lambda wanted=number: decoded(triton, "ok") == wanted), "one runs and three wait for it"  # type: ignore[misc]
    for number, timeout in ((5, 60_000_000), (6, 300_000)):
        caller.ask(str(number), timeout=timeout)
        assert wait_for(lambda wanted=number: waiting(triton) == wanted - 4)  # type: ignore[misc]
    caller.ask("7")
    assert wait_for(lambda: caller.answers)
    (name, refusal), *others = caller.answers.items()
    assert (name, others) == ("7", [])
    assert refusal is not None
    assert refusal.status() == "StatusCode.UNAVAILABLE"
    assert "[busy] 2 videos wait to be decoded already" in refusal.message()
    time.sleep(0.3)  # the timeout of the sixth
    assert decoded(triton, "ok") == 4
    go.touch()
    assert wait_for(lambda: len(caller.answers) == 7)
    assert [caller.answers[str(number)] for number in range(1, 6)] == [None] * 5
    overdue = caller.answers["6"]
    assert overdue is not None
    assert overdue.status() == "StatusCode.UNAVAILABLE"
    assert "[busy]" in overdue.message()
    assert wait_for(lambda: run(triton) == 5)
    assert decoded(triton, "expired") == 1


def test_a_request_that_the_network_would_answer_too_late_is_refused_at_once_and_not_run(
    serve: Callable[..., Triton], video: Path, go: Path
) -> None:
    go.write_text("0.5")
    triton = serve(workers="1")
    caller = Caller(triton.grpc_url, video)
    for number in range(8):
        caller.ask(str(number))
    assert wait_for(lambda: len(caller.answers) == 3), "the decode step has seen how long a run takes"
    go.unlink()  # the others wait, however long this test is held up now
    caller.ask("late", timeout=1_000_000)
    caller.ask("patient", timeout=500_000_000)
    assert wait_for(lambda: "late" in caller.answers)
    go.write_text("0.5")
    late = caller.answers["late"]
    assert late is not None
    assert late.status() == "StatusCode.UNAVAILABLE"
    assert "[busy] the network would answer this request in about" in late.message()
    assert wait_for(lambda: len(caller.answers) == 10)
    assert [name for name, error in caller.answers.items() if error] == ["late"]
    assert wait_for(lambda: run(triton) == 9)
