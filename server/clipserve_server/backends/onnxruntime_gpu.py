"""ONNX Runtime with inputs and outputs that stay on its device, as torch tensors that share memory by DLPack.

By default ONNX Runtime copies its inputs from the host and its outputs back in every run. Tested with the CPU as the
device; it has not run on a GPU yet.
"""

from collections.abc import Sequence
from typing import Any

import onnxruntime
import torch
from torch.utils.dlpack import from_dlpack


class BoundSession:
    """A session whose inputs and outputs are bound to tensors on `device`.

    Args:
        session: of the network; for a GPU, opened with that GPU's provider.
        outputs: names of the outputs; run() returns them in this order.
        device: where the inputs are, and where the outputs are put.
    """

    def __init__(self, session: onnxruntime.InferenceSession, outputs: Sequence[str], device: torch.device) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._device = device

    def run(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Tensors on the device, by input name -> new tensors on the device, completely computed."""
        binding: Any = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.from_dlpack(tensor.contiguous()))
        for name in self._outputs:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        if self._device.type == "cuda":
            # ONNX Runtime has a stream of its own, which does not wait for a copy that is in flight in torch's.
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        # Each tensor keeps its memory. The next run takes other memory from ONNX Runtime's arena.
        return [from_dlpack(value) for value in binding.get_outputs()]
