"""The configs bound what a network is handed, whatever backend runs it."""

from pathlib import Path

import pytest

from clipserve_export import capacity
from clipserve_export.configs import parse_config
from clipserve_export.specs import SPECS, ModelSpec

COMMITTED = Path(__file__).parents[2] / "model_repository"
DECODE = parse_config((COMMITTED / "decode" / "config.pbtxt").read_text())


@pytest.fixture(params=SPECS.values(), ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return request.param  # type: ignore[no-any-return]


def most_clips(spec: ModelSpec) -> int:
    """Of one video, by the decode step's config."""
    bound = DECODE.parameters.get(f"MAX_{spec.geometry.output_name}")
    return int(bound.string_value) if bound else capacity.MOST_CLIPS


def test_the_largest_run_a_server_can_put_together_fits_a_gpu_of_24_gb(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    assert net.max_batch_size * most_clips(spec) * capacity.CLIP_MEGABYTES[spec.name] <= 20 * 1024


def test_the_published_protocols_are_within_the_bounds(spec: ModelSpec) -> None:
    views, crops = (5, 1) if spec.family == "mvit" else (10, 3)
    assert most_clips(spec) >= views * crops


def test_a_stand_in_takes_a_run_in_parts_of_two_gigabytes(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    part = int(net.parameters["max_clips_at_once"].string_value)
    assert part >= 1
    assert part * capacity.CLIP_MEGABYTES[spec.name] <= 2048


def test_what_waits_for_a_network_is_bounded(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    policy = net.dynamic_batching.default_queue_policy
    waiting = policy.max_queue_size * most_clips(spec) * capacity.clip_bytes(spec.geometry)
    assert policy.max_queue_size >= capacity.FEWEST_WAITING
    assert waiting < 6 * 2**30
    # Zero would be no timeout at all, and a request's own would then not count.
    assert policy.allow_timeout_override
    assert policy.default_timeout_microseconds > 0


def test_an_ensemble_takes_as_many_videos_as_its_network(spec: ModelSpec) -> None:
    """Triton refuses to load one that takes more."""
    ensemble, net = (
        parse_config((COMMITTED / name / "config.pbtxt").read_text()) for name in (spec.name, spec.net_name)
    )
    assert ensemble.max_batch_size == net.max_batch_size <= DECODE.max_batch_size
