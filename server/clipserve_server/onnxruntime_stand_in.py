"""Stands in for Triton's C++ ONNX Runtime backend: the same library, called from Python."""

import os

import onnxruntime

from clipserve_server.standing_in import Arrays, StandIn


class TritonPythonModel(StandIn):
    """Runs model.onnx. Of the C++ backend's parameters it understands the names below."""

    session: onnxruntime.InferenceSession

    def load(self) -> None:
        """Open a session on the device the instance group names."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Not the machine's cores but those this process may use, which a container limits.
        cores = len(os.sched_getaffinity(0))
        options.intra_op_num_threads = int(self.instance.parameters.get("intra_op_thread_count", cores))
        options.enable_mem_pattern = self.instance.parameters.get("enable_mem_pattern", "1") == "1"
        options.enable_cpu_mem_arena = self.instance.parameters.get("enable_mem_arena", "1") == "1"
        # Spinning wins microseconds for this session and takes them from the decoder beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(self.instance.model_file, options, providers=self._providers())

    def _providers(self) -> list[str | tuple[str, dict[str, int]]]:
        if self.instance.device_id is None:
            return ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError(
                "Triton placed this model on a GPU, but the installed onnxruntime has no CUDA:"
                " install onnxruntime-gpu, or start with CUDA_VISIBLE_DEVICES= to serve on the CPU"
            )
        return [("CUDAExecutionProvider", {"device_id": self.instance.device_id}), "CPUExecutionProvider"]

    def run(self, inputs: Arrays) -> Arrays:
        """One run of the session."""
        feeds = dict(zip(self.instance.inputs, inputs, strict=True))
        outputs: Arrays = self.session.run(list(self.instance.outputs), feeds)
        return outputs
