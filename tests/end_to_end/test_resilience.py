"""The service survives its videos: through real Triton, whatever happens to a decode worker costs one request."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import VideoClassifier
from clipserve.errors import ClipserveError, DecodeCrashed, DecodeFailed, ServerBusy, VideoTooLarge, VideoTooLong
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.errors import ModelLoadError
from clipserve_server.triton import Triton
from tests.decode.mutation import BASES, mutate
from tests.motion_repository import video_input
from tests.watching import decode_workers, metric, stubs, wait_for

FUZZED_FILES = 300


def test_kill_9_of_workers_under_load_costs_only_their_requests(serve: Callable[..., Triton], video: Path) -> None:
    triton = serve(workers="2", max_waiting="1000")
    choice, kills = random.Random(0), 6

    def classify(_: int) -> str:
        try:
            return classifier.classify(video).top.label
        except DecodeCrashed:
            return "crashed"

    with VideoClassifier("motion", url=triton.grpc_url) as classifier, ThreadPoolExecutor(4) as pool:
        answers: Counter[str] = Counter()
        for _ in range(kills):
            in_flight = pool.map(classify, range(20))
            answers.update([next(in_flight) for _ in range(choice.randrange(20))])
            os.kill(choice.choice(decode_workers(triton)), signal.SIGKILL)
            answers.update(in_flight)
        assert set(answers) <= {"moving left", "crashed"}
        assert answers["crashed"] <= kills
        assert answers["moving left"] > answers["crashed"]
        assert classifier.classify(video).top.label == "moving left"
    # One that was killed as it started is replaced without a count of its own.
    assert wait_for(lambda: metric(triton, "clipserve_decode_worker_restarts_total") >= answers["crashed"])
    assert wait_for(lambda: len(decode_workers(triton)) == 2)
    assert metric(triton, 'clipserve_decode_total{outcome="crashed"}') == answers["crashed"]


def test_no_ffmpeg_in_the_process_that_talks_to_triton(service) -> None:  # type: ignore[no-untyped-def]
    """A crash there would end the model for good."""
    (pid,) = stubs(service.triton, "decode")
    assert "libavcodec" not in Path(f"/proc/{pid}/maps").read_text()


def test_more_than_the_queue_holds_is_refused_as_busy_and_the_service_goes_on(
    serve: Callable[..., Triton], video: Path
) -> None:
    triton = serve(workers="1", max_waiting="2")
    with VideoClassifier("motion", url=triton.grpc_url) as classifier, ThreadPoolExecutor(20) as pool:
        (pid,) = decode_workers(triton)
        os.kill(pid, signal.SIGSTOP)
        waiting = [pool.submit(classifier.classify, video)]
        time.sleep(0.5)  # the first is handed to the worker: it would take the place of another in the queue
        waiting += [pool.submit(classifier.classify, video) for _ in range(19)]
        assert wait_for(lambda: sum(future.done() for future in waiting) >= 17)
        os.kill(pid, signal.SIGCONT)
        errors = [future.exception() for future in waiting]
        refused = [error for error in errors if error is not None]
        assert all(isinstance(error, ServerBusy) and error.retryable for error in refused)
        assert len(refused) == 17, "one at work and two in the queue are answered"
        assert classifier.classify(video).top.label == "moving left"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"max_bytes": "1000"}, VideoTooLarge),
        pytest.param({"max_pixels": "1000"}, VideoTooLarge, marks=pytest.mark.long),
        ({"max_seconds": "1"}, VideoTooLong),
        pytest.param({"max_frames": "10"}, VideoTooLong, marks=pytest.mark.long),
    ],
)
def test_each_limit_is_set_in_the_config_and_has_its_own_error(
    serve: Callable[..., Triton], video: Path, parameters: dict[str, str], error: type[ClipserveError]
) -> None:
    triton = serve(**parameters)
    with (
        VideoClassifier("motion", url=triton.grpc_url) as classifier,
        pytest.raises(error, match=r"left\.mp4") as raised,
    ):
        classifier.classify(video)
    assert next(iter(parameters.values())) in str(raised.value).replace(",", "")


def test_a_network_may_take_fewer_clips_of_a_video_than_the_protocol_allows(
    serve: Callable[..., Triton], video: Path
) -> None:
    triton = serve(MAX_CLIP_8X8_64_64="6")
    tensor = video_input(video.read_bytes())
    with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        client.infer("motion", [tensor], parameters={"policy": "clip", "views": 2, "crops": 3})
        with pytest.raises(InferenceServerException, match=r"3 views x 3 crops are 9 clips.* at most 6") as raised:
            client.infer("motion", [tensor], parameters={"policy": "clip", "views": 3, "crops": 3})
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "[invalid-request]" in raised.value.message()


def test_a_setting_that_is_no_number_keeps_the_model_from_loading(serve: Callable[..., Triton]) -> None:
    with pytest.raises(ModelLoadError, match=r"decode does not load: .*max_frames"):
        serve(max_frames="plenty")


def test_decode_workers_that_cannot_start_keep_the_model_from_loading_and_say_why(
    serve: Callable[..., Triton], motion_repository: Path
) -> None:
    package = motion_repository / "decode" / "1" / "packages" / "av"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('libavcodec is out of order')\n")
    with pytest.raises(ModelLoadError, match=r"decode does not load: .*ImportError: libavcodec is out of order"):
        serve()


def test_a_defect_of_the_decode_step_is_answered_counted_and_logged_and_costs_no_worker(
    serve: Callable[..., Triton], motion_repository: Path, video: Path
) -> None:
    engine = motion_repository / "decode" / "1" / "packages" / "clip_decode" / "engine.py"
    text = engine.read_text()
    engine.unlink()  # not in place: it may be a link to the original
    engine.write_text(text.replace("    started = perf_counter()\n", "    started = 1 / (len(data) - 6)\n", 1))
    triton = serve(workers="1")
    before = decode_workers(triton)
    with VideoClassifier("motion", url=triton.grpc_url) as classifier:
        with pytest.raises(DecodeFailed, match="ZeroDivisionError"):
            classifier.classify(b"defect")
        assert classifier.classify(video).top.label == "moving left"
    assert decode_workers(triton) == before
    assert metric(triton, 'clipserve_decode_total{outcome="failed"}') == 1
    assert metric(triton, "clipserve_decode_worker_restarts_total") == 0
    log = triton.log_path.read_text()
    assert "a video of 6 bytes" in log
    assert "ZeroDivisionError: float division by zero" in log or "ZeroDivisionError: division by zero" in log


def test_request_parameters_reach_the_decode_step(service, video: Path) -> None:  # type: ignore[no-untyped-def]
    def scores(**parameters: object) -> np.ndarray:  # type: ignore[type-arg]
        return client.infer("motion", [video_input(video.read_bytes())], parameters=parameters).as_numpy("SCORES")  # type: ignore[no-any-return]

    with triton_grpc.InferenceServerClient(service.url) as client:
        whole = scores()
        clips = scores(policy="clip", views=3, crops=3)
        assert whole.shape == clips.shape == (1, 12)
        assert np.abs(whole - clips).max() > 1e-4
        first_half = scores(end_seconds=1.0)
        assert np.abs(whole - first_half).max() > 1e-4
        for wrong in ({"views": 999}, {"policy": "best"}, {"colour": "red"}, {"start_seconds": "soon"}):
            with pytest.raises(InferenceServerException, match=r"\[invalid-request\]") as raised:
                scores(**wrong)
            assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_several_videos_in_one_request_are_answered_in_order(service, video: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    labels = ("growing", "moving left", "blinking")
    files = []
    for label in labels:
        write_motion_video(tmp_path / label, label, 1_234_567, container="mp4")
        files.append((tmp_path / label).read_bytes())
    with triton_grpc.InferenceServerClient(service.url) as client:
        wanted = triton_grpc.InferRequestedOutput("SCORES", class_count=1)
        answer = client.infer("motion", [video_input(*files)], outputs=[wanted]).as_numpy("SCORES")
    assert [text.decode().split(":")[2] for (text,) in answer] == list(labels)


def test_damaged_files_lose_no_request_and_no_model(serve: Callable[..., Triton], video: Path) -> None:
    """The short form of `make fuzz`."""
    triton = serve()
    chance = random.Random(20)
    bases = [clip.make() for clip in BASES.values()]
    files = [mutate(chance.choice(bases), chance) for _ in range(FUZZED_FILES)]
    with VideoClassifier("motion", url=triton.grpc_url) as classifier, ThreadPoolExecutor(4) as pool:

        def outcome(data: bytes) -> str:
            try:
                return "answer" if classifier.classify(data, retry=True) else ""
            except ClipserveError as error:
                return error.code

        outcomes = Counter(pool.map(outcome, files))
        assert classifier.classify(video).top.label == "moving left"
    assert sum(outcomes.values()) == FUZZED_FILES
    assert outcomes["answer"] > FUZZED_FILES // 4
    typed = {
        "answer",
        "empty",
        "not-a-video",
        "truncated",
        "no-video-stream",
        "unsupported-codec",
        "too-large",
        "too-long",
    }
    assert set(outcomes) <= typed | {"crashed", "timed-out", "out-of-memory"}
    assert metric(triton, "clipserve_decode_worker_restarts_total") == sum(
        outcomes[code] for code in ("crashed", "timed-out", "out-of-memory")
    )
