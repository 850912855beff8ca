"""A bad file gets a typed error with file and reason. The server and all other calls go on."""

import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from clipserve import VideoClassifier
from clipserve.errors import (
    ClipserveError,
    EmptyVideo,
    NotAVideo,
    NoVideoStream,
    ServerUnavailable,
    TruncatedVideo,
    UnknownModel,
    VideoError,
    VideoNotReadable,
)
from clipserve_export.motion.videos import write_motion_video
from tests.service import Service


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {
        name: tmp_path / name for name in ("good.mp4", "text.mp4", "empty.mp4", "sound.mp4", "sound.wav", "cut.mp4")
    }
    write_motion_video(paths["good.mp4"], "moving left", 1_234_567)
    paths["text.mp4"].write_text("this is no video\n" * 100)
    paths["empty.mp4"].touch()
    write_audio(paths["sound.mp4"])
    with wave.open(str(paths["sound.wav"]), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    # An mp4's index is at its end: half of one is no video at all.
    whole = paths["good.mp4"].read_bytes()
    paths["cut.mp4"].write_bytes(whole[: len(whole) // 2])
    return paths


@pytest.fixture
def classifier(service: Service):  # type: ignore[no-untyped-def]
    with VideoClassifier("motion", url=service.url) as classifier:
        yield classifier


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("text.mp4", (NotAVideo,)),
        ("empty.mp4", (EmptyVideo,)),
        ("sound.mp4", (NoVideoStream,)),
        ("sound.wav", (NoVideoStream, NotAVideo)),
        ("cut.mp4", (TruncatedVideo, NotAVideo)),
    ],
)
def test_a_file_that_is_no_video_gets_an_error_that_names_it_and_the_next_call_works(
    classifier: VideoClassifier, files: dict[str, Path], name: str, kinds: tuple[type[VideoError], ...]
) -> None:
    with pytest.raises(kinds) as raised:
        classifier.classify(files[name])
    assert name in str(raised.value)
    assert raised.value.video == str(files[name])
    assert not raised.value.retryable
    assert len(str(raised.value)) > len(name) + 20, "no reason is given"
    assert classifier.classify(files["good.mp4"]).top.label == "moving left"


def test_a_truncated_file_with_frames_enough_gets_an_answer_and_a_remark(
    classifier: VideoClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "stream.ts"
    write_motion_video(path, "shrinking", 1_234_567, seconds=3)
    whole = path.read_bytes()
    # In the middle of a packet of 188 bytes: an encoder's files are not of the same length each time.
    path.write_bytes(whole[: len(whole) // 188 * 8 // 10 * 188 + 94])
    prediction = classifier.classify(path, report=True)
    assert prediction.report is not None
    assert 0 < prediction.report["frames"] < 90
    assert classifier.classify(path).truncated
    assert classifier.classify(whole).truncated is False


def test_bad_files_among_good_ones_disturb_nobody(classifier: VideoClassifier, files: dict[str, Path]) -> None:
    order = [*files.values()] * 6

    def answer(path: Path) -> str:
        try:
            return classifier.classify(path).top.label
        except ClipserveError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, order))
    for path, given in zip(order, answers, strict=True):
        assert (given == "moving left") == (path.name == "good.mp4"), (path.name, given)


def test_the_bytes_that_name_another_file_do_not_open_it(classifier: VideoClassifier, files: dict[str, Path]) -> None:
    """A concat script is text that FFmpeg would follow to any file on the server's disk."""
    script = f"ffconcat version 1.0\nfile '{files['good.mp4']}'\n".encode()
    with pytest.raises(VideoError):
        classifier.classify(script)


def test_an_unknown_model_is_answered_with_the_models_there_are(service: Service, files: dict[str, Path]) -> None:
    with VideoClassifier("x3d_q", url=service.url) as classifier, pytest.raises(UnknownModel) as raised:
        classifier.classify(files["good.mp4"])
    assert raised.value.models is not None
    assert set(raised.value.models) == set(service.models)
    assert all(name in str(raised.value) for name in service.models)


def test_a_file_that_is_not_there_is_the_callers_to_put_right(classifier: VideoClassifier, tmp_path: Path) -> None:
    with pytest.raises(VideoNotReadable, match=r"absent\.mp4"):
        classifier.classify(tmp_path / "absent.mp4")


def test_a_server_that_is_down_is_said_to_be_at_once(files: dict[str, Path]) -> None:
    with VideoClassifier("motion", url="127.0.0.1:9") as classifier, pytest.raises(ServerUnavailable):
        classifier.classify(files["good.mp4"], timeout_seconds=5)
