"""Substitutes Triton's C++ ONNX Runtime backend: calls the same libraries from Python."""

from typing import Protocol

import onnxruntime
import triton_python_backend_utils as pb_utils

from clipserve_server.backends.substitute import Array, Arrays, Instance, SubstituteBackend
from clipserve_server.options import wanted_precision

Providers = list[str | tuple[str, dict[str, int]]]


class Runtime(Protocol):
    """Runs a network file."""

    def run(self, inputs: dict[str, Array]) -> Arrays:
        """Arrays by the names of the inputs -> arrays in the order of the config's outputs."""


class TritonPythonModel(SubstituteBackend):
    """Runs model.onnx. Knows the CPU accelerator `openvino`, and the parameters of the C++ backend named below."""

    runtime: Runtime

    def load(self) -> None:
        """Open the file on the device of the instance group."""
        if self.instance.device_id is None:
            self.runtime = choose_cpu_runtime(self.instance)
        else:
            self.load_on_gpu(self.instance.device_id)

    def load_on_gpu(self, gpu: int) -> None:
        """Open the file on a GPU, where torch owns the memory. Only here torch is imported."""
        from clipserve_server.backends.onnxruntime_gpu import BoundSession
        from clipserve_server.backends.torch_memory import TorchMemory, choose_device

        session = open_session(self.instance, choose_providers(gpu))
        if "CUDAExecutionProvider" not in session.get_providers():
            # ONNX Runtime only warns, and takes the CPU.
            raise RuntimeError(
                f"Triton placed this model on a GPU, but onnxruntime {onnxruntime.__version__} cannot load CUDA: the"
                " log says what it lacks. Install a torch for the CUDA that it needs, or start with"
                " CUDA_VISIBLE_DEVICES= to serve on the CPU"
            )
        device = choose_device(gpu, remedy="install a CUDA build of torch, which holds the arrays for ONNX Runtime")
        self.memory = TorchMemory(device)
        self.runtime = BoundSession(session, self.instance.outputs, device)

    def run(self, inputs: Arrays) -> Arrays:
        """Run the network."""
        return self.runtime.run(dict(zip(self.instance.inputs, inputs, strict=True)))


def choose_cpu_runtime(instance: Instance) -> Runtime:
    """OpenVINO if the config names it, it is installed and knows the network's operators, else ONNX Runtime."""
    if "openvino" not in instance.cpu_accelerators:
        return OnnxRuntime(instance)
    try:
        from clipserve_server.backends.openvino_runtime import OpenVinoRuntime
    except ImportError as error:
        pb_utils.Logger.log_warn(f"{instance.model_file} runs in ONNX Runtime: OpenVINO is not installed ({error})")
        return OnnxRuntime(instance)
    try:
        runtime = OpenVinoRuntime(
            instance.model_file, instance.outputs, threads=instance.threads, precision=wanted_precision()
        )
    except RuntimeError as error:  # of OpenVINO: a file of a user may have an operator that it lacks
        reason = str(error).strip().rpartition("\n")[2]
        pb_utils.Logger.log_warn(f"{instance.model_file} runs in ONNX Runtime: OpenVINO does not compile it ({reason})")
        return OnnxRuntime(instance)
    pb_utils.Logger.log_info(f"{instance.model_file} runs in OpenVINO: {runtime.precision}, {instance.threads} threads")
    return runtime


class OnnxRuntime:
    """A session of ONNX Runtime on the CPU."""

    def __init__(self, instance: Instance) -> None:
        self._outputs = list(instance.outputs)
        self._session = open_session(instance, choose_providers(None))

    def run(self, inputs: dict[str, Array]) -> Arrays:
        """Run the session."""
        outputs: Arrays = self._session.run(self._outputs, inputs)
        return outputs


def open_session(instance: Instance, providers: Providers) -> onnxruntime.InferenceSession:
    """Open the network file with the config's parameters."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = instance.threads
    options.enable_mem_pattern = instance.parameters.get("enable_mem_pattern", "1") == "1"
    options.enable_cpu_mem_arena = instance.parameters.get("enable_mem_arena", "1") == "1"
    # Threads that spin win microseconds for this session, and take more from the decoder beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(instance.model_file, options, providers=providers)


def choose_providers(device_id: int | None) -> Providers:
    """ONNX Runtime's execution providers for a GPU, or for the CPU.

    Raises:
        RuntimeError: a GPU, but an onnxruntime without CUDA.
    """
    if device_id is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "Triton placed this model on a GPU, but the installed onnxruntime has no CUDA:"
            " install onnxruntime-gpu, or start with CUDA_VISIBLE_DEVICES= to serve on the CPU"
        )
    return [("CUDAExecutionProvider", {"device_id": device_id}), "CPUExecutionProvider"]
