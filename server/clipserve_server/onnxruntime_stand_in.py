"""Stands in for Triton's C++ ONNX Runtime backend: the same libraries, called from Python."""

from typing import Protocol

import onnxruntime
import triton_python_backend_utils as pb_utils

from clipserve_server.memory import Array, Arrays
from clipserve_server.precision import wanted_precision
from clipserve_server.standing_in import Instance, StandIn

Providers = list[str | tuple[str, dict[str, int]]]


class Runtime(Protocol):
    """Runs one network file."""

    def run(self, feeds: dict[str, Array]) -> Arrays:
        """Arrays by the names of the inputs -> arrays in the order of the config's outputs."""


class TritonPythonModel(StandIn):
    """Runs model.onnx; understands the CPU accelerator `openvino`, and the parameters of the C++ backend below."""

    runtime: Runtime

    def load(self) -> None:
        """Open the file on the device the instance group names."""
        if self.instance.device_id is None:
            self.runtime = choose_cpu_runtime(self.instance)
        else:
            self.load_on_gpu(self.instance.device_id)

    def load_on_gpu(self, gpu: int) -> None:
        """torch owns the memory there; on the CPU, importing it would cost each process seconds and 200 MiB in vain."""
        from clipserve_server.device_memory import DeviceMemory, choose_device
        from clipserve_server.onnxruntime_on_device import OnDevice

        session = open_session(self.instance, choose_providers(gpu))
        device = choose_device(gpu, remedy="install a CUDA build of torch, which holds the arrays for ONNX Runtime")
        self.memory = DeviceMemory(device)
        self.runtime = OnDevice(session, self.instance.outputs, device)

    def run(self, inputs: Arrays) -> Arrays:
        """One run of the network."""
        return self.runtime.run(dict(zip(self.instance.inputs, inputs, strict=True)))


def choose_cpu_runtime(instance: Instance) -> Runtime:
    """OpenVINO where the config asks for it and it is installed; ONNX Runtime elsewhere."""
    if "openvino" not in instance.cpu_accelerators:
        return OnnxRuntime(instance)
    try:
        from clipserve_server.openvino_runtime import OpenVinoRuntime
    except ImportError as error:
        pb_utils.Logger.log_warn(f"{instance.model_file}: by ONNX Runtime, for want of OpenVINO ({error})")
        return OnnxRuntime(instance)
    runtime = OpenVinoRuntime(
        instance.model_file, instance.outputs, threads=instance.threads, precision=wanted_precision()
    )
    pb_utils.Logger.log_info(f"{instance.model_file}: by OpenVINO in {runtime.precision}, {instance.threads} threads")
    return runtime


class OnnxRuntime:
    """A session of ONNX Runtime on the CPU."""

    def __init__(self, instance: Instance) -> None:
        self._outputs = list(instance.outputs)
        self._session = open_session(instance, choose_providers(None))

    def run(self, feeds: dict[str, Array]) -> Arrays:
        """One run of the session."""
        outputs: Arrays = self._session.run(self._outputs, feeds)
        return outputs


def open_session(instance: Instance, providers: Providers) -> onnxruntime.InferenceSession:
    """The network file, with the config's parameters."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = instance.threads
    options.enable_mem_pattern = instance.parameters.get("enable_mem_pattern", "1") == "1"
    options.enable_cpu_mem_arena = instance.parameters.get("enable_mem_arena", "1") == "1"
    # Spinning wins microseconds for this session and takes them from the decoder beside it.
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
