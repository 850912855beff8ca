"""Stands in for Triton's C++ PyTorch backend: the same TorchScript interpreter, called from Python."""

from collections.abc import Callable

import torch

from clipserve_server.device_memory import DeviceMemory, choose_device
from clipserve_server.memory import Arrays
from clipserve_server.standing_in import StandIn

# Parameters of the C++ backend that switch parts of the interpreter, for the whole process, as there.
SWITCHES: dict[str, Callable[[bool], object]] = {
    "enable_jit_profiling": torch._C._jit_set_profiling_mode,
    "enable_jit_executor": torch._C._jit_set_profiling_executor,
    "enable_tensor_fuser": torch._C._jit_set_texpr_fuser_enabled,
}


class TritonPythonModel(StandIn):
    """Runs model.pt. A tuple's values are the config's outputs in its order, as in the C++ backend."""

    module: torch.jit.ScriptModule

    def load(self) -> None:
        """Load the module onto the device the instance group names."""
        # Left alone, torch takes a thread a core in every instance, and a second pool for operators side by side.
        torch.set_num_threads(self.instance.threads)
        torch.set_num_interop_threads(1)
        for name, switch in SWITCHES.items():
            if name in self.instance.parameters:
                switch(self.instance.parameters[name].lower() == "true")
        device = choose_device(self.instance.device_id, remedy="install a CUDA build of torch")
        self.memory = DeviceMemory(device)
        self.module = torch.jit.load(self.instance.model_file, map_location=device)

    def run(self, inputs: Arrays) -> Arrays:
        """One call of the module; on a GPU it may still be computing when this returns."""
        with torch.inference_mode():
            outputs: Arrays = self.module(*inputs)
        return outputs
