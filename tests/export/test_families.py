"""Every network of PyTorchVideo is taken apart rightly: one softmax, the features ahead of the projection.

The clips are small, and so are the pools of the heads: all layers, and a small part of the pixels.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clipserve_export.clips import random_clips
from clipserve_export.errors import WeightsError
from clipserve_export.families.adapter import adapter_of, build_model, projection_key
from clipserve_export.families.hub import HubNetwork
from clipserve_export.families.slowfast import SlowFastNetwork
from clipserve_export.formats import FORMATS, FormatName
from clipserve_export.network import ActionNetwork
from clipserve_export.parity import compare
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import require_fit, settle_batch_norms
from clipserve_export.zoo import pytorchvideo

SIDE, CLASSES = 64, 7
RESNETS = ("c2d_r50", "i3d_r50", "slow_r50", "csn_r101", "r2plus1d_r50")
SLOWFASTS = ("slowfast_r50", "slowfast_r101", "slowfast_16x8_r101_50_50")
ENDS_IN_A_SOFTMAX = ("r2plus1d_r50",)
CHEAPEST = "c2d_r50"
# One of each family, and each way of a network to take its clip.
EXPORTED = ("slow_r50", "csn_r101", "r2plus1d_r50", "slowfast_r50")


def shrink(name: str) -> ModelSpec:
    """The model with small clips."""
    spec = SPECS[name]
    return replace(spec, contract=replace(spec.contract, short_side=SIDE, crop=SIDE))


def shrink_pools(model: nn.Module) -> None:
    """Let the heads pool time alone, as a clip of SIDE pixels ends in 2 x 2 positions."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(module, name, nn.AvgPool3d((child.kernel_size[0], 1, 1), stride=1))  # type: ignore[index]


def build_small(spec: ModelSpec) -> tuple[ActionNetwork, nn.Module]:
    """The model as it is served, and as the hub has it; the weights are the same."""
    torch.manual_seed(0)
    adapter = adapter_of(spec)
    assert issubclass(adapter, HubNetwork)
    model = build_model(spec, classes=CLASSES)
    published: nn.Module = getattr(pytorchvideo(adapter.hub), spec.name)(model_num_class=CLASSES)
    for each in (model, published):
        shrink_pools(each)
    settle_batch_norms(model, spec)
    state = model.state_dict()
    # Far from even scores: a second softmax would show.
    state[projection_key(spec)] *= 30
    published.load_state_dict(state)
    model.load_state_dict(state)
    return adapter(model, spec.contract).eval().requires_grad_(False), published.eval().requires_grad_(False)


def as_the_hub_takes_it(spec: ModelSpec, frames: Tensor) -> Tensor | list[Tensor]:
    """For SlowFast as PackPathway of PyTorchVideo's tutorial packs it, written out apart from the code under test."""
    if spec.family != "slowfast":
        return frames
    count = frames.shape[2]
    return [torch.index_select(frames, 2, torch.linspace(0, count - 1, count // 4).long()), frames]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == CHEAPEST else pytest.mark.long) for name in (*RESNETS, *SLOWFASTS)],
)
def test_one_softmax_is_taken_at_each_position_and_the_features_are_ahead_of_the_projection(name: str) -> None:
    spec = shrink(name)
    network, published = build_small(spec)
    clip = random_clips(spec.geometry, batch=1, views=1, seed=7)
    frames = ((clip[:, 0].permute(0, 4, 1, 2, 3).double() / 255 - 0.45) / 0.225).float()
    seen: list[Tensor] = []
    head = published.get_submodule(projection_key(spec).removesuffix(".weight"))
    head.register_forward_hook(lambda module, inputs, output: seen.extend((inputs[0], output)))
    with torch.no_grad():
        scores, features = network(clip)
        answer = published(as_the_hub_takes_it(spec, frames))
    embedding, logits = (value.flatten(1, -2)[0] for value in seen)
    assert embedding.shape == (4, spec.feature_size)
    expected = logits.softmax(-1).mean(0)
    if name in ENDS_IN_A_SOFTMAX:
        torch.testing.assert_close(answer[0], expected, rtol=1e-4, atol=1e-6)
    else:
        torch.testing.assert_close(answer[0], logits.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0], expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(features[0], embedding.mean(0), rtol=1e-3, atol=1e-4)
    assert float(expected.softmax(0).max()) < 0.9 * float(scores.max()), "a second softmax would not show"


def names_device(path: Path) -> bool:
    """Whether a file makes tensors on the device of its trace, a CPU, wherever it runs; then it fails on a GPU."""
    module = torch.jit.load(path)
    return any(str(node.output().type()) == "Device" for node in module.graph.findAllNodes("prim::Constant"))


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", EXPORTED)
def test_a_family_is_written_in_both_formats_with_free_batch_and_views(
    name: str, form: FormatName, tmp_path: Path
) -> None:
    spec = shrink(name)
    network, _ = build_small(spec)
    path = tmp_path / FORMATS[form].filename
    FORMATS[form].write(network, spec.geometry, path)
    if form == "torchscript":
        assert not names_device(path)
    parity = compare(network, FORMATS[form].load(path), spec.geometry, shapes=((1, 1), (3, 2)), seed=3)
    parity.require()


def test_the_slow_pathway_gets_the_frames_of_slowfasts_protocol() -> None:
    frames = torch.arange(32.0).view(1, 1, 32, 1, 1)
    slow, fast = SlowFastNetwork.model_input(frames)
    assert slow.flatten().tolist() == [0, 4, 8, 13, 17, 22, 26, 31]
    assert fast is frames


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_says_what_its_network_is(name: str) -> None:
    """The classes, the features, and the place of the projection."""
    spec = SPECS[name]
    shapes = adapter_of(spec).shapes(spec, classes=CLASSES)
    assert shapes[projection_key(spec)].shape == (CLASSES, spec.feature_size)
    assert spec.contract.classes in (12, 400)
    assert spec.contract.accuracy
    assert spec.contract.weights_licence
    assert spec.contract.weights_source


@pytest.mark.parametrize("name", ["mvit_base_16x4", "slowfast_r50"])
def test_a_checkpoint_with_the_names_of_the_hub_fits(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    with torch.device("cpu"):
        state = build_model(spec, classes=2).state_dict()
    require_fit(spec, state, tmp_path / "checkpoint.pyth")
    state["head.other"] = torch.ones(1)
    with pytest.raises(WeightsError, match="has unknown 1 of"):
        require_fit(spec, state, tmp_path / "checkpoint.pyth")
