"""A request to a busy server is sent again, with delays that grow and differ; final failures are not retried."""

import threading

import grpc
import pytest

from clipserve import (
    DeadlineExceeded,
    ModelNotReady,
    NotAVideo,
    ServerBusy,
    ServerUnavailable,
)
from clipserve.error_mapping import CallContext
from clipserve.retry import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, RetryPolicy
from tests.client.fake_triton import FakeTriton
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once

BUSY = (grpc.StatusCode.UNAVAILABLE, "[busy] many videos are waiting")
VIDEO = b"video"


def test_a_request_to_a_busy_server_is_retried_until_it_answers(connect, triton):
    triton.failures_left = 3
    (row,) = connect().classify_many([VIDEO])
    assert row.prediction
    assert len(triton.requests) == 4
    assert row.milliseconds >= (triton.arrivals[-1] - triton.arrivals[0]) * 1000 - 50


def test_a_call_that_a_stopping_server_ends_is_retried(connect, triton):
    """Triton's status for some of those that come in at that moment."""
    classifier = connect()
    classifier.classify(VIDEO)
    triton.failures_left, triton.passing_failure = 2, (grpc.StatusCode.CANCELLED, "CANCELLED")
    (row,) = classifier.classify_many([VIDEO], retry_seconds=HANG_SECONDS)
    assert row.prediction
    assert len(triton.requests) == 4


@pytest.mark.parametrize(
    "failure",
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no"),
        (grpc.StatusCode.INTERNAL, "broken"),
        (grpc.StatusCode.INVALID_ARGUMENT, "no such parameter"),
    ],
)
def test_a_final_failure_is_not_retried(connect, triton, failure):
    triton.failure = failure
    (row,) = connect().classify_many([VIDEO])
    assert row.error
    assert len(triton.requests) == 1


def test_retries_end_with_the_deadline(connect, triton):
    triton.failure = BUSY
    with at_once():
        (row,) = connect().classify_many([VIDEO], timeout_seconds=2.0)
    # The last attempt may have had no time left for an answer.
    assert isinstance(row.error, ServerBusy | DeadlineExceeded)
    assert len(triton.requests) > 1


def test_one_video_is_not_retried_by_default(connect, triton):
    triton.failures_left = 2
    with pytest.raises(ServerBusy):
        connect().classify(VIDEO)
    assert connect().classify(VIDEO, retry=True).top.label == "archery"


def test_delays_are_random_below_a_limit_that_doubles_up_to_the_longest():
    call = CallContext(url="", model="", timeout_seconds=3600)
    for attempt in range(12):
        limit = min(FIRST_RETRY_SECONDS * 2**attempt, LONGEST_RETRY_SECONDS)
        delays = [RetryPolicy(0).choose_delay(ServerBusy("busy"), call, attempt, 0) for _ in range(200)]
        assert max(delays) <= limit
        assert max(delays) > 0.9 * limit
        assert min(delays) < 0.1 * limit
    assert RetryPolicy(0).choose_delay(NotAVideo("no"), call, 0, 0) is None
    assert RetryPolicy(0).choose_delay(ServerBusy("busy"), call, 0, 3600) is None
    assert RetryPolicy(7200).choose_delay(ServerBusy("busy"), call, 0, 3600) is not None


def test_attempts_of_one_video_end_with_its_deadline():
    call = CallContext(url="", model="", timeout_seconds=60)
    assert RetryPolicy(0).limit_attempt(call, 45) == 15
    assert RetryPolicy(600).limit_attempt(call, 45) == 60


def test_a_server_that_was_never_there_is_reported_at_once(connect, free_port):
    with at_once():
        rows = list(connect(url=f"localhost:{free_port}").classify_many([VIDEO] * 10, timeout_seconds=NEVER_SECONDS))
    assert {type(row.error) for row in rows} == {ServerUnavailable}


def test_with_retry_seconds_the_client_waits_for_a_server_that_is_starting(connect, start, free_port):
    threading.Timer(1.0, lambda: start(FakeTriton(), port=free_port)).start()
    rows = connect(url=f"localhost:{free_port}").classify_many([VIDEO] * 10, retry_seconds=HANG_SECONDS)
    assert all(row.prediction for row in rows)


def test_retries_outlast_the_deadline_of_a_call(connect, triton):
    triton.models["x3d_m"].ready = False
    threading.Timer(2.0, lambda: setattr(triton.models["x3d_m"], "ready", True)).start()
    (row,) = connect().classify_many([VIDEO], timeout_seconds=1.5, retry_seconds=HANG_SECONDS)
    assert row.prediction


def test_a_server_that_is_gone_is_waited_for_once(connect, triton):
    triton.models["x3d_m"].ready = False
    # Spent on each, it would be 1000 seconds. A busy machine may need seconds to connect.
    with at_once():
        rows = list(connect().classify_many([VIDEO] * 400, parallel=2, timeout_seconds=5.0, retry_seconds=5.0))
    assert {type(row.error) for row in rows} == {ModelNotReady}
