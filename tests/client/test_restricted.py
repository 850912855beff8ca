"""A server that requires a key for some calls, as with --grpc-restricted-protocol."""

import grpc
import pytest

from clipserve import AccessDenied, ModelNotReady, ServerBusy, UnknownModel, VideoClassifier
from tests.motion_repository import KilledTriton
from tests.watching import NEVER_SECONDS, at_once, when

VIDEO = b"video"
HEADER = "triton-grpc-protocol-admin-key"
WAYS = rf"expecting header '{HEADER}'.*headers=\{{'{HEADER}': KEY\}}.*--header '{HEADER}: KEY'"


@pytest.fixture
def closed(triton):
    """A server that refuses the repository's index."""
    triton.restricted = ("RepositoryIndex",)
    return triton


def test_a_refused_list_of_models_says_which_header_opens_it_and_how_to_give_it(connect, closed):
    with pytest.raises(AccessDenied, match=WAYS) as caught:
        connect().models()
    assert not caught.value.retryable


@pytest.mark.parametrize("key", ["secret", "a guess"])
def test_the_key_opens_the_list_and_a_guess_does_not(connect, closed, key):
    classifier = connect(headers={HEADER: key})
    if key == "secret":
        assert classifier.models() == ["mvit_base_16x4", "x3d_m"]
    else:
        with pytest.raises(AccessDenied, match=HEADER):
            classifier.models()


def test_a_refusal_without_a_header_name_suggests_credentials(connect, triton):
    triton.failure = (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")
    with pytest.raises(AccessDenied, match=r"is restricted\).*headers=.*--header 'authorization"):
        connect().classify(VIDEO)


def test_restricted_inference_is_access_denied(connect, triton):
    triton.restricted = ("ModelInfer",)
    with pytest.raises(AccessDenied, match=WAYS):
        connect().classify(VIDEO, retry=True)
    assert [method for method, _ in triton.metadata] == ["ModelInfer"]


def test_a_refused_list_does_not_hide_that_the_model_is_unknown(connect, closed):
    with pytest.raises(UnknownModel, match="'x3d_q' is not found") as caught:
        connect("x3d_q").classify(VIDEO)
    assert caught.value.models is None


def test_refused_readiness_does_not_hide_that_the_server_is_there_and_busy(connect, triton):
    triton.restricted = ("ModelReady",)
    triton.failure = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with pytest.raises(ServerBusy, match="Exceeds maximum queue size"):
        connect().classify(VIDEO)


def test_a_model_that_comes_up_is_waited_for_without_the_list(connect, closed):
    closed.models["x3d_m"].ready = False
    when(lambda: closed.times_asked("ModelReady") > 3, lambda: setattr(closed.models["x3d_m"], "ready", True))
    with at_once():
        connect().wait_until_ready(timeout_seconds=NEVER_SECONDS)
    assert closed.models["x3d_m"].ready


def test_a_failed_wait_without_the_list_doubts_the_name_as_well(connect, closed):
    with pytest.raises(ModelNotReady, match=r"1 s.*'x3d_q'.*or does not exist: the server does not list its models"):
        connect("x3d_q").wait_until_ready(timeout_seconds=1.0)


def test_a_real_restricted_triton_is_recognised_and_serves(onnx_repository, motion_videos, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    options = ["--grpc-restricted-protocol=model-repository:admin-key=secret"]
    with KilledTriton(onnx_repository, models=["motion"], options=options, **ports) as server:
        with VideoClassifier("motion", server.grpc_url) as classifier:
            classifier.wait_until_ready()
            assert classifier.classify(motion_videos / "still.mp4").top.label == "still"
            with pytest.raises(AccessDenied, match=WAYS):
                classifier.models()
        with VideoClassifier("x3d_q", server.grpc_url) as classifier, pytest.raises(UnknownModel):
            classifier.classify(motion_videos / "still.mp4")
        with VideoClassifier("motion", server.grpc_url, headers={HEADER: "secret"}) as classifier:
            assert classifier.models() == ["motion"]
