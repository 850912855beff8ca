"""The rewritten blocks of MViT are PyTorchVideo's function, with weights that make every part of it count."""

import copy

import pytest
import torch
from torch import nn

from clipserve_export.clips import random_clips
from clipserve_export.mvit import ResidualPool, TokenBlock, rewrite_blocks
from clipserve_export.network import ActionNetwork, served_network
from clipserve_export.specs import SPECS
from clipserve_export.weights import random_weights
from clipserve_export.zoo import pytorchvideo

MVITS = [name for name, spec in SPECS.items() if spec.family == "mvit"]


def telling_network(name: str) -> ActionNetwork:
    """A network whose answers depend on all its tokens, as a new one's hardly do."""
    network = served_network(SPECS[name], random_weights(SPECS[name]).state)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        spread = 0.02 if parameter.dim() == 1 else 2 / parameter[0].numel() ** 0.5
        parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return network


@pytest.mark.parametrize("name", MVITS)
def test_it_is_the_same_function_and_its_parts_are_rewritten(name: str) -> None:
    network = telling_network(name)
    rewritten = copy.deepcopy(network)
    rewrite_blocks(rewritten)
    kinds = [type(module).__name__ for module in rewritten.modules()]
    assert kinds.count("TokenBlock") == 16
    assert "MultiScaleBlock" not in kinds
    clips = random_clips(SPECS[name].geometry, batch=2, views=1, seed=1)
    with torch.inference_mode():
        (_, expected), (_, found) = network(clips), rewritten(clips)
    size = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.1 * size, "these weights do not tell one clip from another"
    assert (found - expected).abs().max() < 1e-4 * size


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
