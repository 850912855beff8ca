"""Waiting for a server and a model."""

import grpc
import pytest

from clipserve import AccessDenied, ModelNotReady, ServerUnavailable, UnknownModel
from tests.watching import NEVER_SECONDS, at_once, when


def test_a_ready_model_is_not_waited_for(connect):
    with at_once():
        connect().wait_until_ready(timeout_seconds=NEVER_SECONDS)


@pytest.mark.parametrize("part", ["x3d_m", "x3d_m_net", "decode"])
def test_the_wait_ends_when_the_model_and_all_its_steps_are_ready(connect, triton, part):
    triton.models[part].ready = False
    when(lambda: triton.times_asked("ModelReady") > 3, lambda: setattr(triton.models[part], "ready", True))
    with at_once():
        connect().wait_until_ready(timeout_seconds=NEVER_SECONDS)
    assert triton.models[part].ready


@pytest.mark.parametrize("part", ["x3d_m", "x3d_m_net", "decode"])
def test_a_failed_wait_names_the_step_and_the_server_s_reason(connect, triton, part):
    triton.models[part].ready = False
    triton.models[part].reason = "failed to open model.onnx"
    with pytest.raises(ModelNotReady) as caught:
        connect().wait_until_ready(timeout_seconds=1.0)
    for said in ("1 s", f"'{part}'", "failed to open model.onnx"):
        assert said in str(caught.value)


def test_a_server_that_stops_answering_does_not_hide_its_last_answer(connect, triton):
    triton.models["decode"].ready = False
    when(lambda: triton.times_asked("ModelReady") > 1, lambda: triton.stuck.add("ModelReady"))
    with pytest.raises(ModelNotReady, match=r"after 2 s.*'decode'"):
        connect().wait_until_ready(timeout_seconds=2.0)


def test_a_model_that_is_not_ready_is_reported_with_those_that_are(connect, triton):
    triton.models["x3d_m"].ready = False
    with pytest.raises(ModelNotReady, match="ready there: mvit_base_16x4"):
        connect().wait_until_ready(timeout_seconds=1.0)


def test_steps_of_other_models_do_not_matter(connect, triton):
    triton.models["mvit_base_16x4_net"].ready = False
    with at_once():
        connect().wait_until_ready(timeout_seconds=NEVER_SECONDS)


def test_a_server_that_never_comes_up_ends_the_wait_with_its_address(connect, free_port):
    with at_once(), pytest.raises(ServerUnavailable, match=rf"after 0\.5 s.*localhost:{free_port}"):
        connect(url=f"localhost:{free_port}").wait_until_ready(timeout_seconds=0.5)


def test_a_model_that_is_not_in_the_repository_is_not_waited_for(connect):
    with at_once(), pytest.raises(UnknownModel, match=r"'x3d_q'.*mvit_base_16x4, x3d_m") as caught:
        connect("x3d_q").wait_until_ready(timeout_seconds=NEVER_SECONDS)
    assert caught.value.models == ("mvit_base_16x4", "x3d_m")


def test_refused_credentials_are_not_waited_for(connect, triton):
    triton.failure = (grpc.StatusCode.UNAUTHENTICATED, "no token")
    triton.closed_to = "ModelReady"
    with at_once(), pytest.raises(AccessDenied, match="headers="):
        connect().wait_until_ready(timeout_seconds=NEVER_SECONDS)
