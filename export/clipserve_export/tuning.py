"""The same function, faster: what is changed in a network before it is written to a file.

Parity is asked of the file against the network as PyTorchVideo builds it, so a change that is not
the same function is found there. All runtimes fold batch norms into convolutions themselves.
"""

import copy

import torch
from torch import Tensor

from clipserve_export.mvit import rewrite_blocks
from clipserve_export.network import ActionNetwork
from clipserve_export.target import Target


def tune(network: ActionNetwork) -> ActionNetwork:
    """A copy that computes and moves less, for every runtime.

    With it LibTorch runs mvit_base_16x4 1.6 times as fast as traced from PyTorchVideo's blocks
    (`python benchmarks/networks.py`).
    """
    tuned = copy.deepcopy(network)
    rewrite_blocks(tuned)
    return tuned


def lay_out(network: ActionNetwork, target: Target) -> ActionNetwork:
    """`network` itself for LibTorch on `target`, where it may have been moved; other runtimes choose their layout.

    A CPU wants the channels last: x3d_m is twice as fast, x3d_s half as fast again (`python benchmarks/networks.py`).
    cuDNN does not: on an H100 x3d_m in fp16 takes 266 clips a second with the channels last and 633 contiguous.
    """
    if target == "gpu":
        return Contiguous(network).eval()
    # A uint8 [.., T, S, S, 3] clip that is permuted, and never made contiguous, has this layout already.
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


class Contiguous(ActionNetwork):
    """A network whose frames are copied into the layout that its weights have; clips come with the channels last."""

    def __init__(self, network: ActionNetwork) -> None:
        super().__init__()
        self.network = network
        self.projection = network.projection

    def embed(self, frames: Tensor) -> Tensor:
        """As the network."""
        return self.network.embed(frames.contiguous())
