"""Makes a network faster before it is written to a file, without changing its function.

The parity check compares the file with the network that PyTorchVideo builds, so it finds a change of the function. All
runtimes fold batch norms into convolutions by themselves.
"""

import copy

import torch
from torch import Tensor

from clipserve_export.network import ActionNetwork
from clipserve_export.target import Target


def tune(network: ActionNetwork) -> ActionNetwork:
    """A copy that computes less and copies less memory, for every runtime.

    LibTorch runs mvit_base_16x4 1.6 times as fast as with PyTorchVideo's blocks (`python -m benchmarks.networks`).
    """
    tuned = copy.deepcopy(network)
    for module in tuned.modules():
        if isinstance(module, ActionNetwork):
            module.rewrite()
    return tuned


def lay_out(network: ActionNetwork, target: Target) -> ActionNetwork:
    """The network in the memory layout for LibTorch on `target`; may change `network`. Other runtimes choose a layout.

    On a CPU channels last is faster: x3d_m 2 times, x3d_s 1.5 times (`python -m benchmarks.networks`). On a GPU
    contiguous is faster: on an H100, x3d_m in fp16 runs 266 clips a second with channels last and 633 contiguous.
    """
    if target == "gpu":
        return Contiguous(network).eval()
    # A uint8 [.., T, S, S, 3] clip that is permuted and not copied has this layout already.
    # Networks of users may also have convolutions of pictures, whose weights cannot have it.
    for values in (*network.parameters(), *network.buffers()):
        if values.dim() == 5:
            values.data = values.data.contiguous(memory_format=torch.channels_last_3d)
    return network


class Contiguous(ActionNetwork):
    """A network that first copies its frames into the layout of its weights. Clips come with the channels last."""

    def __init__(self, network: ActionNetwork) -> None:
        super().__init__(network.contract)
        self.network = network

    def answer(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """The answer of the network."""
        return self.network.answer(frames.contiguous())
