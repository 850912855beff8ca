"""The accuracy check, against a real server and against one that falsifies scores."""

import threading

import pytest

from clipserve import VideoClassifier
from clipserve.loadtest.accuracy_check import classify_loaded, classify_unloaded
from clipserve.loadtest.inputs import list_videos
from clipserve.loadtest.load_levels import LoadTestError
from tests.loadtest.falsifying_server import falsifying_server

WARM_UP = 2


def check_accuracy(url, videos, tolerance=1e-5):
    paths = list_videos(videos, count=3)
    stop, covered = threading.Event(), threading.Event()
    with VideoClassifier("motion", url) as classifier:
        unloaded = classify_unloaded(classifier, paths)
        threading.Thread(target=lambda: covered.wait(60) and stop.set()).start()
        return classify_loaded(classifier, unloaded, stop, covered, tolerance=tolerance)


def test_the_same_answers_pass(restricted, videos):
    result = check_accuracy(restricted.triton.grpc_url, videos)
    assert result.passed
    assert result.answers >= 3
    assert result.difference <= 1e-5


def test_other_scores_under_load_fail_and_the_largest_difference_is_told(restricted, videos):
    with falsifying_server(restricted.triton.grpc_url, honest=WARM_UP + 3) as url:
        result = check_accuracy(url, videos)
    assert not result.passed
    assert result.difference == pytest.approx(0.1)
    assert "ACCURACY CHECK FAILED" in str(result)


def test_what_the_tolerance_allows_passes(restricted, videos):
    with falsifying_server(restricted.triton.grpc_url, honest=WARM_UP + 3) as url:
        result = check_accuracy(url, videos, tolerance=0.11)
    assert result.difference == pytest.approx(0.1)
    assert result.passed is not result.changed


def test_a_video_that_fails_without_load_already_ends_the_test(restricted, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(LoadTestError, match=r"does not answer even without load: .*text\.mp4"):
        check_accuracy(restricted.triton.grpc_url, tmp_path)
