"""Geometries, limits, errors and reports."""

from __future__ import annotations

import json
import pickle

import pytest

from clip_decode import Busy, DecodeError, Geometry, Limits, TimedOut, decode_clips
from clip_decode.errors import error_classes
from tests.decode.synthesis import Clip

CODES = {
    "not-a-video",
    "no-video-stream",
    "unsupported-codec",
    "encrypted",
    "truncated",
    "too-large",
    "too-long",
    "invalid-request",
    "timed-out",
    "crashed",
    "out-of-memory",
    "failed",
    "busy",
}


def test_every_code_has_one_class() -> None:
    assert set(error_classes()) == CODES


@pytest.mark.parametrize("code", sorted(CODES))
def test_errors_keep_class_and_message_across_processes(code: str) -> None:
    error = DecodeError(code, "what came, what is allowed")
    assert type(error) is error_classes()[code]
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, copy.message) == (type(error), code, "what came, what is allowed")


def test_only_a_busy_server_is_worth_another_try() -> None:
    assert Busy("full").retryable
    assert not TimedOut("slow").retryable
    with pytest.raises(ValueError, match="known: "):
        DecodeError("no-such-code", "")


def test_geometry_reads_its_configuration() -> None:
    config = {"frames": "16", "stride": 5, "short_side": 256, "crop": 224}
    assert Geometry.from_config(config) == Geometry(16, 5, 256, 224)


@pytest.mark.parametrize("values", [(0, 5, 256, 256), (16, 0, 256, 256), (16, 5, 224, 256), (16, 5, 10**6, 1)])
def test_geometry_out_of_bounds_is_refused(values: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"allowed|fit"):
        Geometry(*values)


@pytest.mark.parametrize("value", [1.0, True, None, "x", "1.5"])
def test_geometry_is_whole_numbers(value: object) -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        Geometry.from_config({"frames": value, "stride": 5, "short_side": 256, "crop": 224})
    with pytest.raises(ValueError, match="a geometry has"):
        Geometry.from_config({"frames": 1})


def test_limits_read_their_configuration() -> None:
    assert Limits.from_config({"max_seconds": "60"}) == Limits(max_seconds=60)
    for config in ({"max_second": 1}, {"max_bytes": 0}, {"max_bytes": "x"}):
        with pytest.raises(ValueError, match="limit"):
            Limits.from_config(config)
    with pytest.raises(TypeError, match="whole number"):
        Limits.from_config({"max_bytes": 1.5})


def test_report_is_json_of_what_was_used() -> None:
    data = Clip(frames=30, gop=10, rotation=90).make()
    _, report = decode_clips(data, {"a": Geometry(4, 5, 64, 64)})
    facts = json.loads(report.to_json())
    assert facts["codec"] == "h264"
    assert facts["container"].startswith("mov,mp4")
    assert (facts["width"], facts["height"], facts["rotation_degrees"]) == (64, 96, 270)
    assert facts["pixel_format"] == "yuv420p"
    assert (facts["fps"], facts["duration_seconds"], facts["frames"]) == (30.0, 1.0, 30)
    assert facts["timestamps_seconds"] == {"a": [[0.0, 9 / 30, 19 / 30, 29 / 30]]}
    assert facts["truncated"] is False
    assert facts["decode_milliseconds"] > 0
