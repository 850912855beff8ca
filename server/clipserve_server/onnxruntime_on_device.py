"""ONNX Runtime with inputs and outputs that stay on its device; they come and go as torch tensors, by DLPack.

Left to itself, ONNX Runtime takes its inputs from the host and brings its outputs back there in every run.
Tested with the CPU as the device; it has not run on a GPU yet.
"""

from collections.abc import Sequence
from typing import Any

import onnxruntime
import torch
from torch.utils.dlpack import from_dlpack


class OnDevice:
    """A session whose arrays are tensors on `device`; for a GPU it was opened with that GPU's provider.

    Args:
        session: of the network.
        outputs: names of the outputs, in the order wanted.
        device: where inputs are and outputs shall be.
    """

    def __init__(self, session: onnxruntime.InferenceSession, outputs: Sequence[str], device: torch.device) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._device = device

    def run(self, feeds: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Tensors on the device by the names of the inputs -> new tensors on the device, when they are computed."""
        binding: Any = self._session.io_binding()
        for name, tensor in feeds.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.from_dlpack(tensor.contiguous()))
        for name in self._outputs:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        if self._device.type == "cuda":
            # ONNX Runtime has a stream of its own, which knows nothing of a copy still under way in torch's.
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        # Each tensor keeps its memory; the next run takes other memory from ONNX Runtime's arena.
        return [from_dlpack(value) for value in binding.get_outputs()]
