"""The numbers a network is written in: float32, or half of that, which GPUs multiply several times as fast.

Reduced is what lies between the normalised clip and the embedding. Outside of it nothing changes: CLIP is uint8, the
projection, the softmax and the means are computed in float32, and so are the poolings inside. The answers move by what
the shorter numbers round off, so each precision has a tolerance of its own, and the network it is compared with is
always the one in float32.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clipserve_export.errors import PrecisionError
from clipserve_export.network import ActionNetwork
from clipserve_export.parity import FLOAT32, Tolerance
from clipserve_export.target import Precision

if TYPE_CHECKING:
    # Measuring a network needs no file format, and none of their libraries.
    from clipserve_export.formats import Format

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Seen over 200 clips of the trained motion network: fp16 5e-3 in scores and 1.1e-2 in features, bf16 5e-2 and 8.4e-2,
# top-1 equal in 199 and 197. With random weights (x3d_xs, x3d_s, mvit_base_16x4): fp16 1e-5 and 2.2e-3, bf16 1e-4 and
# 1.3e-2.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": FLOAT32,
    "fp16": Tolerance(scores=2e-2, features=3e-2),
    "bf16": Tolerance(scores=1e-1, features=2e-1),
}


def require_writable(form: Format, precision: Precision) -> None:
    """Raise PrecisionError for a format that cannot hold, or be checked in, this precision."""
    if (form.name, precision) == ("onnx", "bf16"):
        raise PrecisionError(
            "--precision bf16 cannot be had as ONNX: Conv takes bfloat16 from opset 22 on, and the files are written in"
            " opset 20 for ONNX Runtime 1.19 and later; choose --precision fp16, or --format torchscript"
        )


def in_precision(network: ActionNetwork, precision: Precision) -> ActionNetwork:
    """`network` itself for fp32, else a copy whose trunk computes in `precision`."""
    return network if precision == "fp32" else ReducedNetwork(network, TYPES[precision]).eval()


class ReducedNetwork(ActionNetwork):
    """Another network with a trunk in half precision."""

    def __init__(self, network: ActionNetwork, number: torch.dtype) -> None:
        super().__init__()
        self.number = number
        self.projection = network.projection
        self.trunk = copy.deepcopy(network).to(number)
        self.trunk.projection = nn.Identity()  # type: ignore[assignment]  # not called, and not to be saved twice
        widen_pools(self.trunk)

    def embed(self, frames: Tensor) -> Tensor:
        """As the network, in float32 outside."""
        return self.trunk.embed(frames.to(self.number)).float()


def widen_pools(module: nn.Module) -> None:
    """Let every average be taken in float32: thousands of values are added up, and CPUs have no such sum in half."""
    for name, child in module.named_children():
        if isinstance(child, nn.AvgPool3d | nn.AdaptiveAvgPool3d):
            setattr(module, name, WidePool(child))
        else:
            widen_pools(child)


class WidePool(nn.Module):
    """A pooling that adds up in float32."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, values: Tensor) -> Tensor:
        """As the pooling; the type stays."""
        pooled: Tensor = self.pool(values.float())
        return pooled.to(values.dtype)
