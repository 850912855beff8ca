"""The rewritten blocks of MViT are PyTorchVideo's function, with weights that make every part of it count."""

import copy

import pytest
import torch
from torch import nn

from clipserve_export.clips import random_clips
from clipserve_export.families.adapter import served_network
from clipserve_export.families.token_blocks import ResidualPool, TokenBlock, rewrite_blocks
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS
from clipserve_export.weights import random_weights
from clipserve_export.zoo import pytorchvideo
from tests.export.small_mvit import SMALL_MVIT, build_small_mvit

MVITS = [name for name, spec in SPECS.items() if spec.family == "mvit"]


@pytest.fixture(
    ids=lambda name: name or SMALL_MVIT.name,
    params=[None, *(pytest.param(name, marks=pytest.mark.long) for name in MVITS)],
)
def network_and_clips(request: pytest.FixtureRequest) -> tuple[ActionNetwork, torch.Tensor]:
    """A served network and two clips for it."""
    if request.param is not None:
        spec = SPECS[request.param]
        network = served_network(spec, random_weights(spec).state)
        return network, random_clips(spec.geometry, batch=2, views=1, seed=1)
    small, _ = build_small_mvit()
    return small, random_clips(SMALL_MVIT.geometry, batch=2, views=1, seed=1)


def test_it_is_the_same_function_and_its_parts_are_rewritten(
    network_and_clips: tuple[ActionNetwork, torch.Tensor],
) -> None:
    network, clips = network_and_clips
    make_telling(network)
    rewritten = copy.deepcopy(network)
    rewrite_blocks(rewritten)
    kinds = [type(module).__name__ for module in rewritten.modules()]
    assert kinds.count("TokenBlock") == 16
    assert "MultiScaleBlock" not in kinds
    with torch.inference_mode():
        (_, expected), (_, found) = network(clips), rewritten(clips)
    size = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.1 * size, "these weights do not tell one clip from another"
    assert (found - expected).abs().max() < 1e-4 * size


def make_telling(network: ActionNetwork) -> None:
    """Let its answers depend on all its tokens, as a new one's hardly do."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = 0.02 if parameter.dim() == 1 else 2 / parameter[0].numel() ** 0.5
        parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def test_other_networks_stay_as_they_are() -> None:
    network = served_network(SPECS["x3d_xs"], random_weights(SPECS["x3d_xs"]).state)
    before = [id(module) for module in network.modules()]
    rewrite_blocks(network)
    assert [id(module) for module in network.modules()] == before


def make_block(**changes: object) -> nn.Module:
    arguments = {"dim": 8, "dim_out": 8, "num_heads": 2, "kernel_q": (3, 3, 3), "kernel_kv": (3, 3, 3)}
    strides = {"stride_q": (1, 1, 1), "stride_kv": (1, 2, 2)}
    block: nn.Module = pytorchvideo("layers.attention").MultiScaleBlock(**{**arguments, **strides, **changes})
    return block


@pytest.mark.parametrize("changes", [{"has_cls_embed": False}, {"pool_first": True}, {"dropout_rate": 0.5}])
def test_blocks_that_would_be_another_function_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="none of the hub's MViTs"):
        TokenBlock(make_block(**changes), last=False)


def test_pooling_that_would_be_another_function_is_refused() -> None:
    with pytest.raises(ValueError, match="in its last block"):
        TokenBlock(make_block(stride_q=(1, 2, 2)), last=True)
    with pytest.raises(ValueError, match="over time"):
        ResidualPool(nn.MaxPool3d((3, 3, 3), (2, 2, 2), (1, 1, 1)))
