"""Memory of torch tensors, which share memory with Triton's tensors by DLPack: what is on a GPU stays there.

Triton puts its tensors into the host's memory, unless a config says FORCE_CPU_ONLY_INPUT_TENSORS "no". Tensors on the
host reach a GPU through one page-locked buffer for all requests of a batch, which the GPU's copy engine reads without
the processor.

Tests marked `needs("gpu")` cover what runs on a GPU alone; docs/untested.md says what of it has run on one.
"""

import ctypes
from typing import Any

import torch
import triton_python_backend_utils as pb_utils
from torch.utils.dlpack import from_dlpack

from clipserve_server.backends.substitute import Array, Arrays

_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC of cuda.h


def choose_device(gpu: int | None, *, remedy: str) -> torch.device:
    """The device of an instance. Makes it torch's current device, because a context on another GPU costs memory there.

    Args:
        gpu: its number; None for the CPU.
        remedy: what to install when torch cannot use a GPU.

    Raises:
        RuntimeError: the device is a GPU, and torch has no CUDA.
    """
    if gpu is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            "Triton placed this model on a GPU, but the installed torch has no CUDA:"
            f" {remedy}, or start with CUDA_VISIBLE_DEVICES= to serve on the CPU"
        )
    # A thread that waits for the GPU sleeps. By default it spins, on a core that could decode videos.
    ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxSetFlags_v2(gpu, _BLOCKING_SYNC)
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


class TorchMemory:
    """torch tensors for a network on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self, tensor: Any) -> Array:
        """A view of the tensor where it is: on a GPU, or in Triton's shared memory."""
        return from_dlpack(tensor)

    def join(self, arrays: Arrays) -> Array:
        """One batch on the device, put together there or in the buffer."""
        if self.device.type == "cuda" and all(array.device.type == "cpu" for array in arrays):
            return self._stage(arrays)
        placed = [array.to(self.device) for array in arrays]
        return torch.cat(placed) if len(placed) > 1 else placed[0]

    def _stage(self, arrays: Arrays) -> torch.Tensor:
        shape = (sum(len(array) for array in arrays), *arrays[0].shape[1:])
        # torch caches such buffers, and does not reuse one before the copy from it has ended.
        staged = torch.empty(shape, dtype=arrays[0].dtype, pin_memory=True)
        torch.cat(list(arrays), out=staged)
        return staged.to(self.device, non_blocking=True)

    def write(self, name: str, array: Array) -> Any:
        """Leaves the array where it is. Triton waits for the GPU, and copies to the host what a client asked for."""
        return pb_utils.Tensor.from_dlpack(name, array.contiguous())

    def is_lost(self) -> bool:
        """Whether the GPU fails at nothing but waiting for it."""
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
            except RuntimeError:
                return True
        return False
