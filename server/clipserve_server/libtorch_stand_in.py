"""Stands in for Triton's C++ PyTorch backend: the same TorchScript interpreter, called from Python."""

import torch

from clipserve_server.standing_in import Arrays, StandIn


class TritonPythonModel(StandIn):
    """Runs model.pt. A tuple's values are the config's outputs in its order, as in the C++ backend."""

    module: torch.jit.ScriptModule
    device: torch.device

    def load(self) -> None:
        """Load the module onto the device the instance group names."""
        gpu = self.instance.device_id
        if gpu is not None and not torch.cuda.is_available():
            raise RuntimeError(
                "Triton placed this model on a GPU, but the installed torch has no CUDA:"
                " install a CUDA build of torch, or start with CUDA_VISIBLE_DEVICES= to serve on the CPU"
            )
        self.device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
        self.module = torch.jit.load(self.instance.model_file, map_location=self.device)

    def run(self, inputs: Arrays) -> Arrays:
        """One call of the module."""
        with torch.inference_mode():
            outputs = self.module(*(torch.from_numpy(array).to(self.device) for array in inputs))
        return [output.cpu().numpy() for output in outputs]
