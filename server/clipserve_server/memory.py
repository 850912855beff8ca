"""Where a stand-in keeps arrays on their way from Triton's tensors to a network and back.

On the host they are numpy arrays; device_memory.py keeps them as torch tensors, on a GPU or on the host. Slices, `len`,
`shape` and arithmetic are alike in both; these verbs are what is not.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils

Array = Any  # a numpy array or a torch tensor, as the memory has it
Arrays = Sequence[Array]


class Memory(Protocol):
    """One kind of array."""

    def read(self, tensor: Any) -> Array:
        """A request's tensor as an array that shares its memory: good for as long as the request lives."""

    def join(self, arrays: Arrays) -> Array:
        """One batch, where the network runs. A single array that is there already is not copied."""

    def write(self, name: str, array: Array) -> Any:
        """An answer's tensor."""


class HostMemory:
    """numpy arrays."""

    def read(self, tensor: Any) -> Array:
        """A view of Triton's shared memory."""
        return tensor.as_numpy()

    def join(self, arrays: Arrays) -> Array:
        """By numpy."""
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def write(self, name: str, array: Array) -> Any:
        """Triton copies it into its shared memory when the answer is sent."""
        return pb_utils.Tensor(name, array)
