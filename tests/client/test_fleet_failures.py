"""A member that fails, is away, stopped or drained costs no call that another one can answer."""

import socket
import time

import grpc
import pytest

from clipserve import AccessDenied, ServerBusy, ServerFailed, ServerUnavailable, UnknownModel
from clipserve.errors import ModelNotReady
from clipserve.fleet.fleet import MOST_FAILURES
from tests.client.fake_triton import FakeModel, FakeTriton, check_even, shares, urls
from tests.watching import NEVER_SECONDS, at_once, wait_for

VIDEO = b"video"
BUSY = (grpc.StatusCode.UNAVAILABLE, "[busy] many videos are waiting")


def test_a_member_that_was_never_there_costs_no_failure(connect, fleet, free_port):
    for triton in fleet:
        triton.delay = 0.02
    classifier = connect(url=[f"localhost:{free_port}", *urls(fleet)])
    with at_once():
        rows = list(classifier.classify_many([VIDEO] * 90, timeout_seconds=NEVER_SECONDS))
    assert all(row.prediction for row in rows)
    check_even(shares(fleet))


def test_one_call_without_retry_goes_to_another_member(connect, triton, free_port):
    classifier = connect(url=[f"localhost:{free_port}", triton.url])
    for _ in range(4):
        assert classifier.classify(VIDEO).top.label == "archery"


def test_a_fleet_that_is_not_there_is_reported_at_once(connect, free_port):
    classifier = connect(url=[f"localhost:{free_port}", f"127.0.0.1:{free_port}", f"127.0.0.2:{free_port}"])
    with (
        at_once(),
        pytest.raises(ServerUnavailable, match=rf"no server answers at (localhost|127.0.0.[12]):{free_port}"),
    ):
        classifier.classify(VIDEO, timeout_seconds=NEVER_SECONDS)


def test_a_busy_member_is_left_alone_for_a_while(connect, fleet):
    fleet[0].failure = BUSY
    for triton in fleet:
        triton.delay = 0.01
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 100, parallel=6))
    assert all(row.prediction for row in rows)
    # It refuses at once, so it always has the fewest calls in flight.
    assert len(fleet[0].requests) < 25


@pytest.mark.parametrize(
    "failure",
    [
        (grpc.StatusCode.INTERNAL, "the network has a defect"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),  # a gRPC server that is no Triton
        (grpc.StatusCode.PERMISSION_DENIED, "another key"),
        (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-key'"),
    ],
    ids=lambda failure: failure[0].name,
)
def test_a_member_that_fails_costs_no_failure_and_gets_few_calls(connect, fleet, failure):
    fleet[0].failure = failure
    for triton in fleet:
        triton.delay = 0.01
    classifier = connect(url=urls(fleet))
    assert [classifier.classify(VIDEO).top.label for _ in range(4)] == ["archery"] * 4  # without retries
    rows = list(classifier.classify_many([VIDEO] * 100, parallel=6))
    assert all(row.prediction for row in rows)
    # It fails at once, so it always has the fewest calls in flight.
    assert len(fleet[0].requests) < 25


@pytest.mark.parametrize(
    ("failure", "error"),
    [((grpc.StatusCode.INTERNAL, "no"), ServerFailed), ((grpc.StatusCode.PERMISSION_DENIED, "no"), AccessDenied)],
)
def test_a_failure_that_all_members_have_is_reported_after_each_was_asked_once(connect, fleet, failure, error):
    for triton in fleet:
        triton.failure = failure
    classifier = connect(url=urls(fleet))
    for calls in (1, 2):
        with at_once(), pytest.raises(error):
            classifier.classify(VIDEO, retry=True, timeout_seconds=NEVER_SECONDS)
        assert shares(fleet) == [calls] * 3


def test_a_request_that_fails_anywhere_is_not_sent_to_every_member(connect, fleet, start):
    more = [FakeTriton() for _ in range(3)]
    for triton in more:
        start(triton)
    for triton in (*fleet, *more):
        triton.failures_by_content[VIDEO] = (grpc.StatusCode.INTERNAL, "out of memory")
    classifier = connect(url=urls([*fleet, *more]))
    with pytest.raises(ServerFailed):
        classifier.classify(VIDEO)
    assert sum(shares([*fleet, *more])) == MOST_FAILURES
    assert classifier.classify(b"another video").top.label == "archery"


def test_a_fleet_that_is_busy_is_busy(connect, fleet, free_port):
    for triton in fleet:
        triton.failure = BUSY
    with pytest.raises(ServerBusy):
        connect(url=[*urls(fleet), f"localhost:{free_port}"]).classify(VIDEO)
    assert shares(fleet) == [1, 1, 1]


def test_a_call_is_tried_again_until_some_member_has_room(connect, fleet):
    for triton in fleet:
        triton.failures_left = 2
    assert connect(url=urls(fleet)).classify(VIDEO, retry=True).top.label == "archery"


def test_a_member_without_the_model_is_left_out(connect, fleet):
    del fleet[0].models["x3d_m"]
    fleet[1].models["x3d_m"] = FakeModel(ready=False)
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 30, parallel=3))
    assert all(row.prediction for row in rows)
    assert len(fleet[0].requests) <= 3
    assert len(fleet[2].requests) == 30


def test_a_model_that_no_member_has_is_unknown(connect, fleet):
    with pytest.raises(UnknownModel, match="it has mvit_base_16x4, x3d_m"):
        connect("slow_r50", url=urls(fleet)).classify(VIDEO)
    for triton in fleet:
        triton.models["x3d_m"] = FakeModel(ready=False)
    with pytest.raises(ModelNotReady):
        connect(url=urls(fleet)).classify(VIDEO)


def test_a_failure_of_the_video_is_final(connect, fleet):
    for triton in fleet:
        triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no")
    (row,) = connect(url=urls(fleet)).classify_many([VIDEO])
    assert row.error.code == "not-a-video"
    assert sum(shares(fleet)) == 1


def test_a_member_that_comes_back_gets_calls_again(connect, triton, start, free_port):
    classifier = connect(url=[triton.url, f"localhost:{free_port}"])
    for _ in range(4):
        classifier.classify(VIDEO)
    late = FakeTriton()
    start(late, port=free_port)

    def is_used():
        classifier.classify(VIDEO)
        return late.requests

    assert wait_for(is_used)
    before = shares([triton, late])
    for _ in range(10):
        classifier.classify(VIDEO)
    assert [now - then for now, then in zip(shares([triton, late]), before, strict=True)] == [5, 5]


def test_a_drained_member_finishes_its_calls_and_gets_no_others(connect, fleet):
    """As Triton drains: it unloads its models, and answers what it has."""
    draining = fleet[0]
    draining.hold = True
    classifier = connect(url=urls(fleet))
    stream = classifier.classify_many([VIDEO] * 40, parallel=3, ordered=False)
    rows = [next(iter(stream))]
    draining.wait_for_calls(1)
    draining.models["x3d_m"] = FakeModel(ready=False)
    sent = len(draining.requests)
    time.sleep(1.0)  # the watcher asks after 0.4 s
    rows += [next(stream) for _ in range(30)]
    assert len(draining.requests) == sent
    draining.models["x3d_m"] = FakeModel()
    draining.release.set()
    draining.hold = False
    rows += list(stream)
    assert len(rows) == 40
    assert all(row.prediction for row in rows)


@pytest.fixture
def deaf():
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def stuck(start):
    """A server that takes calls and answers none."""
    triton = FakeTriton(hold=True, stuck={"ModelReady"})
    start(triton)
    return triton


def test_calls_of_a_member_that_answers_nothing_go_to_another_one(connect, fleet, deaf, stuck):
    """As of a process that SIGSTOP stopped, or a machine that is cut off."""
    classifier = connect(url=[deaf, stuck.url, *urls(fleet)])
    with at_once():
        rows = list(classifier.classify_many([VIDEO] * 40, parallel=4, timeout_seconds=NEVER_SECONDS))
    assert all(row.prediction for row in rows)
    # One call waited for it, for two or three seconds; all others went elsewhere.
    assert len(stuck.requests) == 1


def test_the_calls_of_the_last_member_are_never_cut(connect, triton, free_port):
    """A server that answers nothing for long may yet answer, and there is no other one."""
    triton.stuck = {"ModelReady"}
    triton.delay = 4.0
    classifier = connect(url=[triton.url, f"localhost:{free_port}"])
    assert classifier.classify(VIDEO).top.label == "archery"
    assert len(triton.requests) == 1
