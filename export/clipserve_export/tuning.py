"""The same function, faster: what is changed in a network before LibTorch gets it.

Parity is asked of the file against the network as PyTorchVideo builds it, so a change that is not
the same function is found there. Runtimes that compile a graph (ONNX Runtime, OpenVINO) choose
layouts and fuse attention themselves; all of them fold batch norms into convolutions.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from clipserve_export.network import ActionNetwork
from clipserve_export.zoo import pytorchvideo


def tune(network: ActionNetwork) -> ActionNetwork:
    """A copy with convolutions in the layout that clips come in, and fused attention.

    The layout makes x3d_m twice as fast on a CPU and x3d_s half as fast again, fused attention
    mvit_base_16x4 a seventh (`python benchmarks/networks.py`).
    """
    tuned: Any = copy.deepcopy(network)
    explicit = pytorchvideo("layers.attention").MultiScaleAttention
    for module in list(tuned.modules()):
        for name, child in module.named_children():
            if isinstance(child, explicit):
                setattr(module, name, FusedAttention(child))
    # A uint8 [.., T, S, S, 3] clip that is permuted, and never made contiguous, has this layout already.
    tuned = tuned.to(memory_format=torch.channels_last_3d)
    assert isinstance(tuned, ActionNetwork)
    return tuned


class FusedAttention(nn.Module):
    """PyTorchVideo's MultiScaleAttention without the matrix of all pairs in memory."""

    def __init__(self, explicit: Any) -> None:
        super().__init__()
        if explicit.pool_first or explicit.dropout_rate:
            raise ValueError("none of the hub's MViTs pools ahead of the projection, or drops out")
        self.explicit = explicit

    def forward(self, tokens: Tensor, thw_shape: list[int]) -> tuple[Tensor, list[int]]:
        """[B, N, C] and the sizes (T, H, W) that its tokens come from -> the same, pooled."""
        batch, count, channels = tokens.shape
        project, pool, finish = self.explicit._qkv_proj, self.explicit._qkv_pool, self.explicit.proj
        q, k, v = project(tokens, count, tokens, count, tokens, count, batch, channels)
        q, q_shape, k, _, v, _ = pool(q, k, v, thw_shape)
        # Its default scale is that of PyTorchVideo: 1 / sqrt(channels a head).
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return finish(mixed.transpose(1, 2).reshape(batch, -1, channels)), q_shape
