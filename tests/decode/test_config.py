"""The decode step's config: its parameters, what overrides them, and the copies of its names and defaults."""

import json
from dataclasses import fields

import pytest

from clip_decode.errors import InvalidRequest
from clip_decode.limits import Limits
from clip_decode.sampling import MAX_VIEWS_TIMES_CROPS, Sampling
from clipserve_export.configs import DECODE_PARAMETERS
from clipserve_host import decode_step
from decode_model.config import StepConfig
from decode_pool.admission import BacklogLimit
from decode_pool.settings import PoolSettings

PARAMETERS = {
    "CLIP_A": json.dumps({"frames": 8, "stride": 8, "short_side": 64, "crop": 64}),
    "CLIP_B": json.dumps({"frames": 16, "stride": 5, "short_side": 256, "crop": 256}),
    "MAX_CLIP_B": "27",
    "QUEUE_CLIP_A": json.dumps({"networks": ["a_net"], "requests": 16, "megabytes": 512}),
    "max_seconds": "600",
    "workers": "2",
    "decoder": "nvdec",
}
TEN_BY_THREE = Sampling(policy="clip", views=10, crops=3)


def test_parameters_are_read_into_their_places() -> None:
    config = StepConfig.from_parameters(PARAMETERS, {})
    assert [geometry.frames for geometry in config.geometries.values()] == [8, 16]
    assert config.max_clips == {"CLIP_B": 27}
    assert config.backlog_limits == {"CLIP_A": BacklogLimit(("a_net",), 16, 512)}
    assert config.pool == PoolSettings(workers=2, decoder="nvdec")
    assert config.limits == Limits(max_seconds=600)


def test_the_environment_overrides_parameters_and_the_error_says_why() -> None:
    lowered = {"MAX_CLIP_A": "3", "max_bytes": "1000"}
    environment = {"CLIPSERVE_DECODE_LIMITS": json.dumps(lowered), "CLIPSERVE_DECODER": "cpu"}
    config = StepConfig.from_parameters(PARAMETERS, environment)
    assert config.pool.decoder == "cpu"
    assert config.limits.max_bytes == 1000
    with pytest.raises(InvalidRequest, match=r"30 clips, but this model takes at most 3 .*/dev/shm"):
        config.check_clips(["CLIP_A"], TEN_BY_THREE)
    with pytest.raises(InvalidRequest, match=r"at most 27 of one video; ask for fewer"):
        config.check_clips(["CLIP_B"], TEN_BY_THREE)
    StepConfig.from_parameters(PARAMETERS, {}).check_clips(["CLIP_A"], TEN_BY_THREE)


def test_a_parameter_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="max_second"):
        StepConfig.from_parameters({**PARAMETERS, "max_second": "600"}, {})


def test_an_export_keeps_every_parameter_that_the_decode_step_has() -> None:
    assert [*DECODE_PARAMETERS] == [*PoolSettings.names(), *(field.name for field in fields(Limits))]


def test_the_servers_know_the_defaults_of_the_decode_step() -> None:
    pool = PoolSettings()
    assert Limits().max_bytes == decode_step.MAX_VIDEO_BYTES
    assert pool.max_waiting_megabytes == decode_step.MAX_WAITING_MEGABYTES
    assert pool.max_waiting == decode_step.MAX_WAITING
    assert MAX_VIEWS_TIMES_CROPS == decode_step.MAX_CLIPS
    assert {name: getattr(pool, name) for name in decode_step.NVDEC} == decode_step.NVDEC
