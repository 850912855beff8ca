"""Timelines through a real Triton: the same answers as for each window alone, whatever happens to a process."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import VideoClassifier
from clipserve.errors import DecodeCrashed
from clipserve_export.capacity import MAX_VIDEOS
from clipserve_export.formats import FormatName
from clipserve_export.serving.changes import change_serving
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.versions import reload_model
from clipserve_server.triton import Triton
from tests.decode.synthesis import Clip, repeat
from tests.end_to_end.timeline_caller import AnsweredWindow, TimelineCaller
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton, set_parameters, video_input
from tests.watching import HANG_SECONDS, decode_workers, metric, stubs, wait_for, window_workers

WINDOW = {"model": "motion", "window_seconds": 1.0, "step_seconds": 0.5}


@pytest.fixture(scope="module")
def film() -> bytes:
    """Ten seconds."""
    return Clip(frames=300, gop=30, width=160, height=120).make()


@pytest.fixture(scope="module")
def long_film(film: bytes) -> bytes:
    """Three minutes: 400 windows."""
    return repeat(film, 20)


@pytest.fixture
def serve(repositories: Callable[[FormatName], Path], tmp_path: Path) -> Iterator[Callable[..., Triton]]:
    """Serve `motion` with these parameters in the config of timelines."""
    with ExitStack() as running:

        def start(**parameters: str) -> Triton:
            folder = copy_model(repositories("onnx"), tmp_path / "repository", timeline=True)
            set_parameters(folder, "timeline", parameters)
            return running.enter_context(KilledTriton(folder, log=tmp_path / "triton.log", **ANY_PORTS))

        yield start


def classify_alone(url: str, video: bytes, window: AnsweredWindow, model: str, **parameters: Any) -> dict[str, Any]:
    """Scores, features and the report for the span of a window."""
    span = {name: window.facts[name] for name in ("start_seconds", "end_seconds")}
    with triton_grpc.InferenceServerClient(url) as client:
        result = client.infer(model, [video_input(video)], parameters={**parameters, **span})
    return {
        "SCORES": result.as_numpy("SCORES")[0],
        "FEATURES": result.as_numpy("FEATURES")[0],
        "REPORT": json.loads(result.as_numpy("REPORT")[0, 0]),
    }


def check_exact(url: str, video: bytes, model: str = "motion", **parameters: Any) -> list[AnsweredWindow]:
    """Compare every window with a request for it alone, to the bit."""
    with TimelineCaller(url) as caller:
        windows = list(caller.ask(video, **{**WINDOW, "model": model, "features": True}, **parameters))
    for window in windows:
        alone = classify_alone(url, video, window, model, **parameters)
        assert (window.scores == alone["SCORES"]).all()
        assert window.features is not None
        assert (window.features == alone["FEATURES"]).all()
        (numbers,) = alone["REPORT"]["frame_numbers"].values()
        assert window.facts["report"]["frame_numbers"] == numbers
        best = np.argsort(-alone["SCORES"], kind="stable")[:5]
        assert [entry[1] for entry in window.facts["top"]] == best.tolist()
        assert [np.float32(entry[0]) for entry in window.facts["top"]] == alone["SCORES"][best].tolist()
    return windows


@pytest.mark.parametrize("parameters", [{}, {"policy": "clip", "views": 2, "crops": 3}], ids=["uniform", "views"])
def test_every_window_is_answered_as_it_is_alone(service, film: bytes, parameters: dict[str, Any]) -> None:  # type: ignore[no-untyped-def]
    windows = check_exact(service.url, film, **parameters)
    assert [window.facts["index"] for window in windows] == list(range(20))
    first, last = windows[0], windows[-1]
    assert (first.facts["start_seconds"], first.facts["end_seconds"]) == (0.0, 1.0)
    assert (first.facts["start_frame"], first.facts["end_frame"]) == (0, 30)
    assert (last.facts["start_seconds"], last.facts["end_seconds"]) == (9.5, 10.0)
    assert (last.facts["start_frame"], last.facts["end_frame"]) == (285, 300)
    assert last.progress["windows_total"] == 20
    assert last.progress["duration_seconds"] == 10.0
    assert last.progress["truncated"] is False
    labels = (service.repository / "motion_net" / "labels.txt").read_text().splitlines()
    assert [entry[2] for entry in first.facts["top"]] == [labels[entry[1]] for entry in first.facts["top"]]


@pytest.mark.long
@pytest.mark.parametrize("spec", [SPECS[name] for name in ("x3d_xs", "x3d_s", "mvit_base_16x4")], ids=str)
def test_every_model_answers_windows_as_it_does_alone(service, film: bytes, spec: ModelSpec) -> None:  # type: ignore[no-untyped-def]
    check_exact(service.url, film, spec.name, end_seconds=2.0)


def test_the_model_is_no_public_one(motion_url: str) -> None:
    with VideoClassifier("motion", motion_url) as classifier:
        assert classifier.models() == ["motion"]


def test_windows_before_the_first_one_wanted_are_not_sent(motion_url: str, film: bytes) -> None:
    with TimelineCaller(motion_url) as caller:
        all_windows = list(caller.ask(film, **WINDOW))
        rest = list(caller.ask(film, **WINDOW, first_window=17))
        none = list(caller.ask(film, **WINDOW, first_window=20))
    assert [window.facts for window in rest] == [window.facts for window in all_windows[17:]]
    assert none == []


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"model": "no_such"}, "NOT_FOUND", "timelines have no model 'no_such'; this server serves motion"),
        ({"model": "x3d_m"}, "NOT_FOUND", "timelines have no model 'x3d_m'; this server serves motion"),
        ({"model_version": "7"}, "NOT_FOUND", "no version 7 of model 'motion'"),
        ({"window_seconds": 0.0}, "INVALID_ARGUMENT", "[invalid-request] window_seconds is 0.0"),
        ({"step_seconds": -1.0}, "INVALID_ARGUMENT", "[invalid-request] step_seconds is -1.0"),
        ({"step_seconds": "much"}, "INVALID_ARGUMENT", "[invalid-request] step_seconds is 'much'"),
        ({"top_k": 0}, "INVALID_ARGUMENT", "[invalid-request] top_k is 0"),
        ({"sampling": "x"}, "INVALID_ARGUMENT", "no such parameter: 'sampling'; there are policy,"),
        ({"windw": 2}, "INVALID_ARGUMENT", "quality, model, model_version, window_seconds, step_seconds, first_window"),
        ({"start_seconds": 99.0}, "INVALID_ARGUMENT", "[invalid-request] start_seconds is 99.0, but the video ends"),
        ({"views": 30, "crops": 3}, "INVALID_ARGUMENT", "[invalid-request] 30 views x 3 crops"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_an_error(
    motion_url: str, film: bytes, changed: dict[str, Any], status: str, message: str
) -> None:
    with TimelineCaller(motion_url) as caller, pytest.raises(InferenceServerException) as caught:
        list(caller.ask(film, **{**WINDOW, **changed}))
    assert message in caught.value.message()
    assert caught.value.status() in (f"StatusCode.{status}", None)


def test_what_is_no_video_is_an_error(motion_url: str) -> None:
    with TimelineCaller(motion_url) as caller, pytest.raises(InferenceServerException, match=r"\[not-a-video\]"):
        list(caller.ask(b"no video", **WINDOW))


def test_no_ffmpeg_in_the_process_that_talks_to_triton(motion_server: Triton) -> None:
    """A crash there would end the model for good."""
    (pid,) = stubs(motion_server, "timeline")
    assert "libavcodec" not in Path(f"/proc/{pid}/maps").read_text()


def test_no_more_is_sent_than_a_client_acknowledges(motion_server: Triton, long_film: bytes) -> None:
    def sent() -> float:
        return metric(motion_server, "clipserve_timeline_windows_total") - before

    before = metric(motion_server, "clipserve_timeline_windows_total")
    most = 20 + MAX_VIDEOS  # A response has several windows.
    with TimelineCaller(motion_server.grpc_url) as caller, TimelineCaller(motion_server.grpc_url) as other:
        caller.send(long_film, **WINDOW, timeline="one", max_unacknowledged=20)
        assert wait_for(lambda: sent() >= 20)
        time.sleep(0.5)
        assert sent() <= most
        other.send(b"", acknowledge="one", windows=20)
        assert list(other.receive()) == []
        assert wait_for(lambda: sent() >= 40)
        time.sleep(0.5)
        assert sent() <= 20 + most
        # A client that goes away ends the decoding, which would wait ten minutes for an acknowledgement.
        assert window_workers(motion_server)
        caller.cancel()
        assert wait_for(lambda: not window_workers(motion_server))


@pytest.mark.long
def test_a_window_that_takes_long_is_waited_for(serve: Callable[..., Triton], long_film: bytes) -> None:
    """Neither the client's limit for a silent server counts it, nor the server's for a client that reads slowly."""
    triton = serve(max_paused_seconds="4")
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        # A busy machine may pause for seconds, and a sign of life comes each second.
        timeline = classifier.timeline(long_film, window=1, step=0.5, timeout_seconds=4)
        windows = [next(timeline)]
        (worker,) = window_workers(triton)
        os.kill(worker, signal.SIGSTOP)
        wake = threading.Timer(7, os.kill, (worker, signal.SIGCONT))
        wake.start()
        windows += timeline
        wake.join()
    assert [window.index for window in windows] == list(range(400))


def test_a_client_that_takes_no_window_for_long_is_told(serve: Callable[..., Triton], long_film: bytes) -> None:
    triton = serve(max_paused_seconds="1")
    with TimelineCaller(triton.grpc_url) as caller:
        caller.send(long_film, **WINDOW, timeline="one", max_unacknowledged=20)
        with pytest.raises(
            InferenceServerException, match=r"\[timed-out\] the client has acknowledged no window for 1 s"
        ):
            list(caller.receive())


@pytest.mark.long
def test_a_timeline_goes_on_when_its_model_is_loaded_again(serve: Callable[..., Triton], long_film: bytes) -> None:
    """As it is for a model that has joined. Acknowledgements reach only the new instance."""
    triton = serve()
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        timeline = classifier.timeline(long_film, window=1, step=0.5, timeout_seconds=HANG_SECONDS)
        windows = [next(timeline)]
        set_parameters(triton.repository, "timeline", {"max_timelines": "9"})
        with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
            client.load_model("timeline")
        windows += timeline
    assert [window.index for window in windows] == list(range(400))
    assert metric(triton, "clipserve_timeline_limit") == 9


@pytest.mark.long
def test_options_of_a_model_that_is_loaded_again_hold_for_its_timelines(
    serve: Callable[..., Triton], film: bytes
) -> None:
    """Otherwise they would give it runs that it does not take any more."""
    triton = serve()
    change_serving(triton.repository, SPECS["motion"], lambda serving: replace(serving, max_batch=1))
    reload_model(SPECS["motion"], triton.grpc_url)
    with TimelineCaller(triton.grpc_url) as caller:
        windows = list(caller.ask(film, **{**WINDOW, "step_seconds": 0.1}))
    assert [window.facts["index"] for window in windows] == list(range(100))


def test_labels_are_those_of_single_requests_whatever_is_in_them(
    repositories: Callable[[FormatName], Path], film: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")  # As in a container: labels are UTF-8 all the same.
    repository = copy_model(repositories("onnx"), tmp_path / "repository", timeline=True)
    file = repository / "motion_net" / "labels.txt"
    names = file.read_text().splitlines()
    odd = ['l\u00e4uft, "schnell"', "next\x85line", "para\u2028graph <i>", "co:lon", "form\ffeed", "tab\there", ""]
    file.write_bytes("".join(f"{name}\n" for name in [*odd, *names[len(odd) :]]).encode())
    with (
        KilledTriton(repository, log=tmp_path / "triton.log", **ANY_PORTS) as triton,
        VideoClassifier("motion", triton.grpc_url) as classifier,
    ):
        alone = {scored.index: scored.label for scored in classifier.classify(film, top_k=12)}
        window = next(classifier.timeline(film, top_k=12))
    assert alone[0] == odd[0]
    assert {scored.index: scored.label for scored in window} == alone


@pytest.mark.long
def test_a_decoder_that_is_killed_costs_no_window(serve: Callable[..., Triton], long_film: bytes) -> None:
    triton = serve(max_timelines="1", max_timeline_windows="1000")
    numbers: list[int] = []
    killed: list[int] = []
    with TimelineCaller(triton.grpc_url) as caller, TimelineCaller(triton.grpc_url) as other:
        # Acknowledged, so that it runs until the last window is read.
        caller.send(long_film, **WINDOW, timeline="one", max_unacknowledged=40)
        for windows in caller.receive():
            numbers += [window.facts["index"] for window in windows]
            if len(killed) < 2 and numbers[-1] >= 20 * (len(killed) + 1) and (found := window_workers(triton)):
                killed += found
                os.kill(killed[-1], signal.SIGKILL)
                with pytest.raises(InferenceServerException, match=r"\[busy\] 1 timelines run already"):
                    list(other.ask(b"", **WINDOW))
            other.send(b"", acknowledge="one", windows=numbers[-1] + 1)
            list(other.receive())
        assert numbers == list(range(400))
        with pytest.raises(InferenceServerException, match=r"2000 windows .* but 1000 are allowed"):
            list(caller.ask(long_film, **{**WINDOW, "step_seconds": 0.1}))
        with pytest.raises(InferenceServerException, match=r"\[not-a-video\] the file is empty"):
            list(other.ask(b"", **WINDOW))
        assert metric(triton, 'clipserve_timeline_total{outcome="ok"}') == 1
        assert metric(triton, 'clipserve_timeline_total{outcome="busy"}') == 2
        assert metric(triton, "clipserve_timeline_worker_restarts_total") == 2
        assert metric(triton, "clipserve_timeline_limit") == 1
        # A server that stops ends timelines with an error, after which a client goes on elsewhere.
        caller.send(long_film, **WINDOW)
        responses = caller.receive()
        next(responses)
        triton.stop()
        with pytest.raises(InferenceServerException, match=r"\[busy\] the server is stopping"):
            list(responses)


@pytest.mark.long
def test_timelines_and_single_requests_at_once_lose_nothing_to_kill_9(
    serve: Callable[..., Triton], film: bytes, long_film: bytes
) -> None:
    triton, chance = serve(), random.Random(3)

    def read_timeline(_: int) -> list[int]:
        with TimelineCaller(triton.grpc_url) as caller:
            return [window.facts["index"] for window in caller.ask(long_film, **WINDOW)]

    def classify(_: int) -> str:
        try:
            return classifier.classify(film).top.label
        except DecodeCrashed:
            return "crashed"

    with VideoClassifier("motion", triton.grpc_url) as classifier, ThreadPoolExecutor(12) as pool:
        expected = classify(0)
        timelines = pool.map(read_timeline, range(3))
        labels = pool.map(classify, range(50))
        assert wait_for(lambda: len(window_workers(triton)) == 3)
        for find in (window_workers, decode_workers, window_workers):
            os.kill(chance.choice(find(triton)), signal.SIGKILL)
            time.sleep(0.5)
        assert list(timelines) == [list(range(400))] * 3
        answers = Counter(labels)
    assert set(answers) <= {expected, "crashed"}
    assert answers["crashed"] <= 1
    assert metric(triton, "clipserve_timeline_worker_restarts_total") == 2
