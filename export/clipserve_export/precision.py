"""The precision of a network: float32, or half of that, which GPUs multiply several times as fast.

Only the part between the normalised clip and the embedding is reduced, without the poolings in it. CLIP is uint8, and
the projection, the softmax and the means are computed in float32. Shorter numbers change the answers, so each precision
has its own tolerance. The check always compares with the network in float32.
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
    # Not at run time: precision is also used without the libraries of the file formats.
    from clipserve_export.formats import Format

TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Measured over 200 clips of the trained motion network: fp16 5e-3 in scores and 1.1e-2 in features, bf16 5e-2 and
# 8.4e-2, top-1 equal in 199 and 197. With random weights (x3d_xs, x3d_s, mvit_base_16x4): fp16 1e-5 and 2.2e-3, bf16
# 1e-4 and 1.3e-2.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": FLOAT32,
    "fp16": Tolerance(scores=2e-2, features=3e-2),
    "bf16": Tolerance(scores=1e-1, features=2e-1),
}


def require_writable(form: Format, precision: Precision) -> None:
    """Raise PrecisionError for a format that cannot be written, or checked, in this precision."""
    if (form.name, precision) == ("onnx", "bf16"):
        raise PrecisionError(
            "--precision bf16 is not possible with ONNX: Conv takes bfloat16 from opset 22 on, and the files have opset"
            " 20 for ONNX Runtime 1.19 and later; choose --precision fp16, or --format torchscript"
        )


def require_float32(precision: Precision) -> None:
    """Raise PrecisionError for another precision, for a network that has no trunk to reduce."""
    if precision != "fp32":
        raise PrecisionError(
            f"--precision {precision} reduces what is ahead of the embedding, and this network has none of its own:"
            " choose --precision fp32"
        )


def in_precision(network: ActionNetwork, precision: Precision) -> ActionNetwork:
    """`network` itself for fp32, otherwise a copy whose trunk computes in `precision`. Raises PrecisionError."""
    if network.contract.feature_size is None:
        require_float32(precision)
    return network if precision == "fp32" else ReducedNetwork(network, TYPES[precision]).eval()


class ReducedNetwork(ActionNetwork):
    """A network with a copy of another network's trunk, in half precision."""

    def __init__(self, network: ActionNetwork, number: torch.dtype) -> None:
        super().__init__(network.contract)
        self.number = number
        self.projection = network.projection
        self.trunk = copy.deepcopy(network).to(number)
        self.trunk.projection = nn.Identity()  # type: ignore[assignment]  # not called, and must not be saved twice
        widen_pools(self.trunk)

    def embed(self, frames: Tensor) -> Tensor:
        """The embedding in float32."""
        return self.trunk.embed(frames.to(self.number)).float()


def widen_pools(module: nn.Module) -> None:
    """Compute every average in float32: it adds thousands of values, and CPUs cannot do that in half precision."""
    for name, child in module.named_children():
        if isinstance(child, nn.AvgPool3d | nn.AdaptiveAvgPool3d):
            setattr(module, name, WidePool(child))
        else:
            widen_pools(child)


class WidePool(nn.Module):
    """A pooling that computes in float32."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, values: Tensor) -> Tensor:
        """The pooled values, in the type of `values`."""
        pooled: Tensor = self.pool(values.float())
        return pooled.to(values.dtype)
