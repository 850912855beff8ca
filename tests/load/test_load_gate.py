"""The accuracy gate, against a real server that is passed on by an honest and by a false one."""

import threading

import pytest
from loadtest.errors import LoadTestError
from loadtest.gate import ask_loaded, ask_unloaded
from loadtest.inputs import list_videos

from clipserve import VideoClassifier
from tests.load.false_server import false_server

WARMING = 2


def pass_gate(url, videos, tolerance=1e-5):
    paths = list_videos(videos, count=3)
    over, covered = threading.Event(), threading.Event()
    with VideoClassifier("motion", url) as classifier:
        unloaded = ask_unloaded(classifier, paths)
        threading.Thread(target=lambda: covered.wait(60) and over.set()).start()
        return ask_loaded(classifier, unloaded, over, covered, tolerance=tolerance)


def test_the_same_answers_pass(restricted, videos):
    verdict = pass_gate(restricted.triton.grpc_url, videos)
    assert verdict.passed
    assert verdict.answers >= 3
    assert verdict.difference <= 1e-5


def test_other_scores_under_load_fail_and_the_largest_difference_is_told(restricted, videos):
    with false_server(restricted.triton.grpc_url, honest=WARMING + 3) as url:
        verdict = pass_gate(url, videos)
    assert not verdict.passed
    assert verdict.difference == pytest.approx(0.1)
    assert "ACCURACY GATE FAILED" in str(verdict)


def test_what_the_tolerance_allows_passes(restricted, videos):
    with false_server(restricted.triton.grpc_url, honest=WARMING + 3) as url:
        verdict = pass_gate(url, videos, tolerance=0.11)
    assert verdict.difference == pytest.approx(0.1)
    assert verdict.passed is not verdict.changed


def test_a_video_that_fails_without_load_already_ends_the_test(restricted, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(LoadTestError, match=r"without any load already: .*text\.mp4"):
        pass_gate(restricted.triton.grpc_url, tmp_path)
