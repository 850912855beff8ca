"""What is refused before anything is sent, and how the message helps."""

import io
import os
import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from clipserve import (
    EmptyVideo,
    InvalidRequest,
    Tls,
    VideoClassifier,
    VideoError,
    VideoNotReadable,
    VideoTooLarge,
)
from clipserve.checks import MAX_VIDEO_BYTES
from clipserve.options import RequestOptions

VIDEO = b"video"


@pytest.fixture(autouse=True)
def _nothing_is_sent(triton):
    yield
    assert not triton.metadata


@pytest.mark.parametrize("top_k", [0, -1, 2.0, "5", True, None])
def test_top_k_is_a_whole_number_from_1(connect, top_k):
    with pytest.raises(InvalidRequest, match=r"top_k.*from 1 on, got"):
        connect().classify(VIDEO, top_k=top_k)


@pytest.mark.parametrize(
    "seconds",
    [0, -1, float("nan"), float("inf"), "60", True, np.True_, np.float32("nan"), np.timedelta64(3, "s"), 2**63],
)
def test_a_deadline_is_a_positive_number_of_seconds(connect, seconds):
    with pytest.raises(InvalidRequest, match="timeout_seconds"):
        connect(timeout_seconds=seconds)
    with pytest.raises(InvalidRequest, match="timeout_seconds"):
        connect().classify(VIDEO, timeout_seconds=seconds)
    with pytest.raises(InvalidRequest, match="timeout_seconds"):
        connect().wait_until_ready(timeout_seconds=seconds)


@pytest.mark.parametrize("value", [pd.NA, np.array(["fast", "keep"]), ["clip"], None, "no"])
@pytest.mark.parametrize("name", ["sampling", "quality", "on_error", "features", "report"])
def test_a_choice_or_bool_of_another_type_is_refused_with_what_is_allowed(connect, name, value):
    with pytest.raises(InvalidRequest, match=rf"{name} must be .* or .*, got"):
        connect().classify_many([VIDEO], **{name: value})


def test_numpys_truth_values_are_truth_values():
    assert RequestOptions(features=np.True_, report=np.False_) == RequestOptions(features=True)
    assert RequestOptions(features=np.True_).features is True


@pytest.mark.parametrize("url", ["u:p4ss@host:1", "dns:///u:p4ss@host:1", "https://u:p4ss@host:1", "u:p4ss@host\n"])
def test_credentials_in_a_url_are_refused_and_not_shown(connect, url):
    with pytest.raises(InvalidRequest, match="url must be host:port") as caught:
        VideoClassifier("x3d_m", url)
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8000", "https://host", "grpc://host", "host\0:1", "", None])
def test_a_url_is_host_and_port_without_a_scheme(connect, url):
    from clipserve import AsyncVideoClassifier

    for kind in (VideoClassifier, AsyncVideoClassifier):
        with pytest.raises(InvalidRequest, match="localhost:8001"):
            kind("x3d_m", url)


@pytest.mark.parametrize("model", ["", "\ud800", None, 3])
def test_a_model_has_a_name(connect, model):
    with pytest.raises(InvalidRequest, match="model"):
        connect(model)


@pytest.mark.parametrize(
    "headers",
    [{"no spaces": "a"}, {"": "a"}, {"token-bin": "a"}, {3: "a"}, [("a", "b")], {"token": "line\nbreak"}, {"token": 3}],
)
def test_a_header_that_grpc_would_not_send_is_refused_and_its_value_not_shown(connect, headers):
    with pytest.raises(InvalidRequest, match="header") as caught:
        connect(headers=headers)
    assert "break" not in str(caught.value)


@pytest.mark.parametrize("video", [b"", bytearray(), io.BytesIO()])
def test_no_bytes_are_an_error_about_the_video(connect, video):
    with pytest.raises(EmptyVideo, match="is empty") as caught:
        connect().classify(video)
    assert isinstance(caught.value, VideoError)
    assert caught.value.model == "x3d_m"


def test_an_empty_file_is_named(connect, tmp_path):
    path = tmp_path / "clip.mp4"
    path.touch()
    with pytest.raises(EmptyVideo, match=r"clip\.mp4' is empty") as caught:
        connect().classify(path)
    assert caught.value.video == str(path)


@pytest.mark.parametrize("name", ["missing.mp4", "", "."])
def test_a_path_that_does_not_open_is_named_with_the_reason(connect, tmp_path, name):
    path = f"{tmp_path}/{name}" if name else ""
    with pytest.raises(VideoNotReadable) as caught:
        connect().classify(path)
    assert repr(path) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.video, caught.value.model) == (path, "x3d_m")


def test_a_closed_file_is_not_readable(connect, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(VIDEO)
    with path.open("rb") as file:
        pass
    with pytest.raises(VideoNotReadable, match="closed file"):
        connect().classify(file)


def test_a_file_in_text_mode_is_refused(connect, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(VIDEO)
    with path.open() as file, pytest.raises(InvalidRequest, match="mode 'rb'"):
        connect().classify(file)
    with pytest.raises(InvalidRequest, match="mode 'rb'"):
        connect().classify(io.StringIO("video"))


@pytest.mark.parametrize("video", [None, 3, np.zeros((4, 8, 8, 3), np.uint8), ["clip.mp4"]])
def test_anything_else_is_refused_with_what_is_allowed(connect, video):
    with pytest.raises(InvalidRequest, match=r"path .*bytes.*got \w+"):
        connect().classify(video)


def test_a_file_too_large_for_one_message_is_refused_before_it_is_read(connect, tmp_path):
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(MAX_VIDEO_BYTES + 1)  # sparse: takes no room on the disk
    tracemalloc.start()
    with pytest.raises(VideoTooLarge, match=r"long\.mp4.*at most 2,147,418,111"):
        connect().classify(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20
    with path.open("rb") as file:
        with pytest.raises(VideoTooLarge):
            connect().classify(file)
        assert file.tell() == 0


def test_a_pipe_is_read_to_its_end(connect, triton):
    reading, writing = os.pipe()

    def write():
        with os.fdopen(writing, "wb") as file:
            file.write(VIDEO * 1000)

    threading.Thread(target=write).start()
    with os.fdopen(reading, "rb") as file:
        prediction = connect().classify(file)
    assert triton.videos == [VIDEO * 1000]
    assert prediction.video == "<file>"
    triton.metadata.clear()


def test_a_client_certificate_is_two_files():
    with pytest.raises(InvalidRequest, match="private_key and certificate_chain"):
        Tls(private_key="client.key")


def test_a_certificate_that_does_not_open_is_named(connect):
    with pytest.raises(InvalidRequest, match=r"root_certificates.*'missing\.pem'"):
        connect(tls=Tls(root_certificates="missing.pem"))
    with pytest.raises(InvalidRequest, match="tls must be Tls"):
        connect(tls=True)


@pytest.mark.parametrize("call", ["classify", "classify_many", "embed", "models", "wait_until_ready"])
def test_a_call_of_a_closed_classifier_is_refused(connect, call):
    classifier = connect()
    classifier.close()
    with pytest.raises(InvalidRequest, match="this classifier is closed; make a new one"):
        getattr(classifier, call)(*([VIDEO] if call in ("classify", "classify_many", "embed") else []))
