"""The clip contract of a model: what is allowed in it, and how a client reads it from a server."""

import json
from dataclasses import replace

import pytest

from clipserve import ClipContract, InvalidRequest, UnexpectedAnswer, UnknownModel

CONTRACT = ClipContract(
    frames=16,
    stride=5,
    short_side=256,
    crop=224,
    mean=(0.485, 0.456, 0.406),
    deviation=(0.229, 0.224, 0.225),
    sampling="clip",
    views=10,
    crops=3,
    classes=400,
    feature_size=768,
    weights_licence="MIT",
)


def test_a_contract_comes_from_the_server_as_it_was_published(connect, triton):
    triton.models["x3d_m"].contract = CONTRACT.to_json()
    assert connect().contract() == CONTRACT


def test_what_a_newer_server_adds_is_left_out(connect, triton):
    triton.models["x3d_m"].contract = json.dumps({**json.loads(CONTRACT.to_json()), "audio": True})
    assert connect().contract() == CONTRACT


def test_a_server_of_an_older_export_is_told_apart(connect):
    with pytest.raises(UnexpectedAnswer, match=r"has no contract.*clipserve export --configs"):
        connect().contract()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"frames": "many", "stride": 1, "short_side": 1, "crop": 1}'])
def test_a_contract_that_is_none_is_an_unexpected_answer(connect, triton, text):
    triton.models["x3d_m"].contract = text
    with pytest.raises(UnexpectedAnswer, match="is not what this client knows"):
        connect().contract()


def test_an_unknown_model_has_no_contract(connect):
    with pytest.raises(UnknownModel, match="x3d_q"):
        connect("x3d_q").contract()


def test_a_closed_classifier_asks_nobody(connect):
    classifier = connect()
    classifier.close()
    with pytest.raises(InvalidRequest, match="closed"):
        classifier.contract()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 0}, "frames is 0, but must be a whole number from 1 to 256"),
        ({"frames": True}, "frames is True, but must be a whole number"),
        ({"stride": 2.5}, "stride is 2.5"),
        ({"crop": 257}, "crop 257 does not fit"),
        ({"short_side": 4096}, "short_side is 4096"),
        ({"mean": (0.5, 0.5)}, "a number for each of 3 channels"),
        ({"mean": (0.5, 0.5, float("nan"))}, "a number for each of 3 channels"),
        ({"mean": True}, "a number for each of 3 channels"),
        ({"mean": 10**400}, "a number for each of 3 channels"),
        ({"deviation": (0.5, 0.0, 0.5)}, "each value must be above 0"),
        ({"channel_order": "RBG"}, "RGB or BGR"),
        ({"resize": "squash"}, "short side"),
        ({"sampling": "dense"}, "uniform or clip"),
        ({"views": 11}, "11 x 3"),
        ({"crops": 2}, "crops must be 1 or 3"),
        ({"classes": 0}, "classes is 0"),
        ({"weights_licence": None}, "weights_licence is None"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(CONTRACT, **changes)


def test_one_number_stands_for_all_channels():
    assert replace(CONTRACT, mean=0.45).mean == (0.45, 0.45, 0.45)


def test_a_hand_written_contract_has_no_unknown_names():
    with pytest.raises(ValueError, match="a contract has no 'frame'; it has frames, stride"):
        ClipContract.from_values({"frame": 16, "stride": 5, "short_side": 256, "crop": 224})
    with pytest.raises(ValueError, match="needs crop"):
        ClipContract.from_values({"frames": 16, "stride": 5, "short_side": 256})
