"""Substitutes Triton's C++ PyTorch backend: calls the same TorchScript interpreter from Python."""

from collections.abc import Callable

import torch
from torch import Tensor

from clipserve_server.backends.substitute import Arrays, SubstituteBackend
from clipserve_server.backends.torch_memory import TorchMemory, choose_device

# Parameters of the C++ backend that switch parts of the interpreter. They hold for the whole process, as they do there.
SWITCHES: dict[str, Callable[[bool], object]] = {
    "enable_jit_profiling": torch._C._jit_set_profiling_mode,
    "enable_jit_executor": torch._C._jit_set_profiling_executor,
    "enable_tensor_fuser": torch._C._jit_set_texpr_fuser_enabled,
}


class TritonPythonModel(SubstituteBackend):
    """Runs model.pt, which returns the config's only output, or a tuple in its order, as for the C++ backend."""

    module: torch.jit.ScriptModule

    def load(self) -> None:
        """Load the module onto the device of the instance group."""
        # By default every instance has a thread for each core, and a second pool for operators that run side by side.
        torch.set_num_threads(self.instance.threads)
        torch.set_num_interop_threads(1)
        for name, switch in SWITCHES.items():
            if name in self.instance.parameters:
                switch(self.instance.parameters[name].lower() == "true")
        device = choose_device(self.instance.device_id, remedy="install a CUDA build of torch")
        self.memory = TorchMemory(device)
        self.module = torch.jit.load(self.instance.model_file, map_location=device)

    def run(self, inputs: Arrays) -> Arrays:
        """Call the module. A GPU may still be computing when this returns."""
        with torch.inference_mode():
            outputs: Tensor | Arrays = self.module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else outputs
