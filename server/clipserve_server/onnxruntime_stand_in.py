"""Stands in for Triton's C++ ONNX Runtime backend: the same libraries, called from Python."""

from typing import Any, Protocol

import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from clipserve_server.precision import wanted_precision
from clipserve_server.standing_in import Arrays, Instance, StandIn


class Runtime(Protocol):
    """Runs one network file."""

    def run(self, feeds: dict[str, NDArray[Any]]) -> Arrays:
        """Arrays by the names of the inputs -> arrays in the order of the config's outputs."""


class TritonPythonModel(StandIn):
    """Runs model.onnx; understands the CPU accelerator `openvino`, and the parameters of the C++ backend below."""

    runtime: Runtime

    def load(self) -> None:
        """Open the file on the device the instance group names."""
        self.runtime = choose_runtime(self.instance)

    def run(self, inputs: Arrays) -> Arrays:
        """One run of the network."""
        return self.runtime.run(dict(zip(self.instance.inputs, inputs, strict=True)))


def choose_runtime(instance: Instance) -> Runtime:
    """OpenVINO where the config asks for it on the CPU and it is installed; ONNX Runtime elsewhere."""
    if instance.device_id is not None or "openvino" not in instance.cpu_accelerators:
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
    """A session of ONNX Runtime."""

    def __init__(self, instance: Instance) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = instance.threads
        options.enable_mem_pattern = instance.parameters.get("enable_mem_pattern", "1") == "1"
        options.enable_cpu_mem_arena = instance.parameters.get("enable_mem_arena", "1") == "1"
        # Spinning wins microseconds for this session and takes them from the decoder beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._outputs = list(instance.outputs)
        self._session = onnxruntime.InferenceSession(
            instance.model_file, options, providers=choose_providers(instance.device_id)
        )

    def run(self, feeds: dict[str, NDArray[Any]]) -> Arrays:
        """One run of the session."""
        outputs: Arrays = self._session.run(self._outputs, feeds)
        return outputs


def choose_providers(device_id: int | None) -> list[str | tuple[str, dict[str, int]]]:
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
