"""What the substitute backends share: requests become one batch, the network runs it, and each request gets its part.

Triton's batcher gives `execute` the requests of a batch. The substitute runs them as one batch, as the C++ backend
would. It splits the batch where a parameter of the config limits the clips of a run: `max_clips_at_once` on a CPU, by
memory; `max_gpu_clips_at_once` on a GPU, whose libraries do not take tensors of any size.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils

from clipserve_host.device_fit import find_misfit

Array = Any  # a numpy array, or a torch tensor, depending on the Memory; slices, len, shape and arithmetic are alike
Arrays = Sequence[Array]


class Memory(Protocol):
    """Where arrays are between Triton's tensors and the network: HostMemory, or torch_memory.TorchMemory."""

    def read(self, tensor: Any) -> Array:
        """A request's tensor as an array that shares its memory. Valid as long as the request exists."""

    def join(self, arrays: Arrays) -> Array:
        """One batch, in the memory of the network's device. Does not copy a single array that is there already."""

    def write(self, name: str, array: Array) -> Any:
        """A response's tensor."""

    def is_lost(self) -> bool:
        """Whether the device answers nothing any more."""


class HostMemory:
    """numpy arrays."""

    def read(self, tensor: Any) -> Array:
        """A view of Triton's shared memory."""
        return tensor.as_numpy()

    def join(self, arrays: Arrays) -> Array:
        """One array."""
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def write(self, name: str, array: Array) -> Any:
        """Triton copies it into its shared memory when the response is sent."""
        return pb_utils.Tensor(name, array)

    def is_lost(self) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class Instance:
    """An instance of a model, as Triton describes it."""

    model_file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]  # in the order of the config
    device_id: int | None  # of the GPU; None on the CPU
    cpu_accelerators: tuple[str, ...]  # names in the config, for instances on the CPU
    parameters: dict[str, str]  # names in lower case

    @property
    def threads(self) -> int:
        """How many threads a run on the CPU may use: the C++ backends' parameter, or one for each core."""
        # The cores that this process may use: a container may limit them.
        return int(self.parameters.get("intra_op_thread_count", 0)) or len(os.sched_getaffinity(0))

    @classmethod
    def from_arguments(cls, arguments: dict[str, str]) -> "Instance":
        """Read the arguments of `initialize`."""
        config = json.loads(arguments["model_config"])
        accelerators = config.get("optimization", {}).get("execution_accelerators", {})
        if accelerators.get("gpu_execution_accelerator"):
            pb_utils.Logger.log_warn(f"{config['name']}: the substitute backend ignores GPU accelerators")
        return cls(
            model_file=Path(
                arguments["model_repository"], arguments["model_version"], config["default_model_filename"]
            ),
            inputs=tuple(entry["name"] for entry in config["input"]),
            outputs=tuple(entry["name"] for entry in config["output"]),
            device_id=int(arguments["model_instance_device_id"]) if arguments["model_instance_kind"] == "GPU" else None,
            cpu_accelerators=tuple(entry["name"] for entry in accelerators.get("cpu_execution_accelerator", [])),
            # ONNX Runtime's backend spells it intra_op_thread_count, PyTorch's INTRA_OP_THREAD_COUNT.
            parameters={name.lower(): value["string_value"] for name, value in config.get("parameters", {}).items()},
        )


class SubstituteBackend:
    """A Triton Python model that runs a network file. A subclass loads the file and runs it."""

    instance: Instance
    memory: Memory = HostMemory()

    def initialize(self, args: dict[str, str]) -> None:
        """Called once by Triton, in the process of this instance."""
        self.instance = Instance.from_arguments(args)
        self.load()
        device = "cpu" if self.instance.device_id is None else "gpu"
        if misfit := find_misfit(self.instance.model_file, device):
            pb_utils.Logger.log_warn(misfit)

    def load(self) -> None:
        """Load `self.instance.model_file` and set `self.memory`. When it raises, the model does not load."""
        raise NotImplementedError

    def run(self, inputs: Arrays) -> Arrays:
        """Arrays in the order of the config's inputs -> arrays in the order of its outputs."""
        raise NotImplementedError

    def run_in_parts(self, inputs: Arrays) -> Arrays:
        """`run`, with at most as many clips at a time as the config says for the device.

        A network's outputs are means over the views of a video, so the views may be split, too.
        """
        limit = "max_clips_at_once" if self.instance.device_id is None else "max_gpu_clips_at_once"
        most = int(self.instance.parameters.get(limit, 0))
        if not most or len(inputs) != 1:
            return self.run(inputs)
        (clips,) = inputs
        together = max(1, most // clips.shape[1])
        parts = [self._run_views(clips[start : start + together], most) for start in range(0, len(clips), together)]
        return [self.memory.join(column) for column in zip(*parts, strict=True)]

    def _run_views(self, clips: Array, most: int) -> Arrays:
        views = clips.shape[1]
        parts = [clips[:, start : start + most] for start in range(0, views, most)]
        if len(parts) == 1:
            return self.run(parts)
        weights = [part.shape[1] / views for part in parts]
        means = zip(*(self.run([part]) for part in parts), strict=True)
        return [sum(mean * weight for mean, weight in zip(column, weights, strict=True)) for column in means]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one batch. Returns their responses in the same order."""
        read = self.memory.read
        arrays = [
            [read(pb_utils.get_input_tensor_by_name(request, name)) for name in self.instance.inputs]
            for request in requests
        ]
        try:
            outputs = self.run_in_parts([self.memory.join(column) for column in zip(*arrays, strict=True)])
        except Exception as error:
            if self.memory.is_lost():
                # After some errors, such as a fault in its memory, only another process can use a GPU. Where a process
                # has died, the server starts Triton again; this one would fail every request, and be ready.
                pb_utils.Logger.log_error(f"{self.instance.model_file}: the GPU is lost: {error}")
                os._exit(1)
            failure = pb_utils.TritonError(f"{self.instance.model_file.name}: {error}", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        sizes = [len(columns[0]) for columns in arrays]
        spans = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
        return [
            self._respond(request, [output[span] for output in outputs])
            for request, span in zip(requests, spans, strict=True)
        ]

    def _respond(self, request: Any, arrays: Arrays) -> Any:
        requested = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                self.memory.write(name, array)
                for name, array in zip(self.instance.outputs, arrays, strict=True)
                if name in requested
            ]
        )
