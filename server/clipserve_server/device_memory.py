"""Arrays as torch tensors, handed over by DLPack: what is on a GPU stays there, and nothing is copied to be read.

Triton's tensors come in the host's memory unless a config says FORCE_CPU_ONLY_INPUT_TENSORS "no"; then they reach a GPU
through one page-locked buffer for all requests of a batch, which the copy engine can read without the processor.

Tested on the CPU, where the same tensors go the same way. What is done for a GPU alone (the buffer, the choice of the
GPU among several, answers that stay there) has not run on one yet; tests marked `needs("gpu")` wait for it.
"""

from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

from clipserve_server.memory import Array, Arrays


def choose_device(gpu: int | None, *, remedy: str) -> torch.device:
    """The device of an instance, made this process's own: a context on any other GPU would cost memory there.

    Args:
        gpu: its number; None is the CPU.
        remedy: what to install where torch cannot use a GPU.

    Raises:
        RuntimeError: a GPU, but a torch without CUDA.
    """
    if gpu is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            "Triton placed this model on a GPU, but the installed torch has no CUDA:"
            f" {remedy}, or start with CUDA_VISIBLE_DEVICES= to serve on the CPU"
        )
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


class DeviceMemory:
    """torch tensors for a network on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self, tensor: Any) -> Array:
        """A view of the tensor where it is: on a GPU or in Triton's shared memory."""
        return from_dlpack(tensor)

    def join(self, arrays: Arrays) -> Array:
        """On the device: the batch is put together there, or on its way there."""
        if self.device.type == "cuda" and all(array.device.type == "cpu" for array in arrays):
            return self._stage(arrays)
        placed = [array.to(self.device) for array in arrays]
        return torch.cat(placed) if len(placed) > 1 else placed[0]

    def _stage(self, arrays: Arrays) -> torch.Tensor:
        shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
        # torch keeps such buffers for the next batch, and gives none out before the copy from it is over.
        staged = torch.empty(shape, dtype=arrays[0].dtype, pin_memory=True)
        torch.cat(list(arrays), out=staged)
        return staged.to(self.device, non_blocking=True)

    def write(self, name: str, array: Array) -> Any:
        """Where it is. Triton's side waits for the GPU, and copies to the host what a client asked for."""
        return pb_utils.Tensor.from_dlpack(name, array.contiguous())
