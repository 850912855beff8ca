"""The configs limit the batches that a network gets, for every backend."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipserve_export import capacity
from clipserve_export.configs import clip_dims, net_config, parse_config
from clipserve_export.families.adapter import adapter_of, build_model
from clipserve_export.formats import FORMATS
from clipserve_export.precision import in_precision
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.target import Precision
from clipserve_export.tuning import Contiguous, tune

COMMITTED = Path(__file__).parents[2] / "model_repository"
DECODE = parse_config((COMMITTED / "decode" / "config.pbtxt").read_text())


@pytest.fixture(params=SPECS.values(), ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return request.param  # type: ignore[no-any-return]


def most_clips(spec: ModelSpec) -> int:
    """Of one video, by the decode step's config."""
    bound = DECODE.parameters.get(f"MAX_{spec.geometry.output_name}")
    return int(bound.string_value) if bound else capacity.MAX_CLIPS


def test_the_largest_run_a_server_can_put_together_fits_a_gpu_of_24_gb(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    assert net.max_batch_size * most_clips(spec) * spec.clip_megabytes <= 20 * 1024


def test_the_published_protocols_are_within_the_bounds(spec: ModelSpec) -> None:
    assert most_clips(spec) >= spec.contract.views * spec.contract.crops


def test_a_config_tells_the_container_what_a_clip_takes(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    assert net.parameters["clip_megabytes"].string_value == str(spec.clip_megabytes)


def test_a_substitute_backend_runs_parts_of_two_gigabytes(spec: ModelSpec) -> None:
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    part = int(net.parameters["max_clips_at_once"].string_value)
    assert part >= 1
    assert part * spec.clip_megabytes <= 2048


class LargestTensor(TorchDispatchMode):
    """Finds how many values the largest tensor has."""

    values = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        sizes = [value.numel() for value in tree_leaves((args, result)) if isinstance(value, torch.Tensor)]
        self.values = max(self.values, *sizes)
        return result


@pytest.mark.long
def test_no_tensor_of_a_part_on_a_gpu_has_more_values_than_its_libraries_take(spec: ModelSpec) -> None:
    """On torch's device "meta", which has shapes and no values."""
    network = adapter_of(spec)(build_model(spec, classes=400), spec.contract).eval().requires_grad_(False)
    clip = torch.empty(1, 1, *clip_dims(spec.geometry)[1:], dtype=torch.uint8, device="meta")
    for precision in get_args(Precision):
        reduced = Contiguous(tune(in_precision(network, precision))).eval().to("meta")
        with LargestTensor() as largest, torch.no_grad():
            reduced(clip)
        assert capacity.gpu_part_clips(spec, precision) * largest.values < 2**31


def test_a_config_for_a_gpu_says_how_many_clips_its_libraries_take(spec: ModelSpec) -> None:
    config = net_config(spec, FORMATS["torchscript"], classes=5, serving=Serving(target="gpu", precision="fp16"))
    written = int(config.parameters["max_gpu_clips_at_once"].string_value)
    assert written == capacity.gpu_part_clips(spec, "fp16") >= 8, "fewer would leave a GPU idle"


def test_what_waits_for_a_network_is_bounded_by_the_decode_step(spec: ModelSpec) -> None:
    bound = json.loads(DECODE.parameters[f"QUEUE_{spec.geometry.output_name}"].string_value)
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    sharing = [other for other in SPECS.values() if other.geometry == spec.geometry]
    assert bound["networks"] == [other.net_name for other in sharing]
    batches = [
        parse_config((COMMITTED / name / "config.pbtxt").read_text()).max_batch_size for name in bound["networks"]
    ]
    assert net.max_batch_size in batches
    assert bound["requests"] >= 2 * min(batches), "a full run waits while another is decoded"
    assert bound["megabytes"] <= 512


def test_no_network_has_a_queue_policy(spec: ModelSpec) -> None:
    """With any field of it Triton no longer prefetches, and requests wait for its scheduler: benchmarks/stalls.py."""
    net = parse_config((COMMITTED / spec.net_name / "config.pbtxt").read_text())
    assert net.HasField("dynamic_batching")
    assert not net.dynamic_batching.HasField("default_queue_policy")
    assert not net.dynamic_batching.priority_levels
    assert not net.dynamic_batching.priority_queue_policy


def test_an_ensemble_takes_as_many_videos_as_its_network(spec: ModelSpec) -> None:
    """Triton refuses to load one that takes more."""
    ensemble, net = (
        parse_config((COMMITTED / name / "config.pbtxt").read_text()) for name in (spec.name, spec.net_name)
    )
    assert ensemble.max_batch_size == net.max_batch_size <= DECODE.max_batch_size
