"""The hub's MViT for clips so small that it takes no time: all its blocks, and a tiny part of its tokens."""

from dataclasses import replace

import torch
from torch import nn

from clipserve_export.families.mvit import MViTNetwork
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS
from clipserve_export.zoo import pytorchvideo

MVIT = SPECS["mvit_base_16x4"]
SMALL_MVIT = replace(
    MVIT, name="small_mvit", contract=replace(MVIT.contract, frames=8, stride=4, short_side=64, crop=64)
)


def build_small_mvit() -> tuple[ActionNetwork, nn.Module]:
    """As it is served, and as the hub has it; the weights are the same."""
    torch.manual_seed(0)
    build = pytorchvideo("models.hub.vision_transformers").mvit_base_16x4
    size = {"spatial_size": SMALL_MVIT.geometry.crop, "temporal_size": SMALL_MVIT.geometry.frames}
    published, inner = build(**size), build(head_activation=None, **size)
    inner.load_state_dict(published.state_dict())
    return MViTNetwork(inner, SMALL_MVIT.contract).eval().requires_grad_(False), published.eval().requires_grad_(False)
