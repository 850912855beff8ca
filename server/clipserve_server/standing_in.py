"""What the stand-ins for Triton's C++ backends have in common: requests in, one run of the network, answers out.

Triton starts a process for each instance the config's instance groups ask for, and hands `execute` the requests its
batcher put together; the stand-in runs them as one batch, as the C++ backend would, or in parts where the config's
parameter `max_clips_at_once` bounds the memory of a run.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Instance:
    """One instance of a model, as Triton describes it."""

    model_file: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]  # in the order of the config
    device_id: int | None  # of the GPU; None on the CPU
    cpu_accelerators: tuple[str, ...]  # that the config names for instances on the CPU
    parameters: dict[str, str]

    @property
    def threads(self) -> int:
        """How many threads a run may take; the C++ backend's parameter, or a thread a core."""
        # Not the machine's cores but those this process may use, which a container limits.
        return int(self.parameters.get("intra_op_thread_count", len(os.sched_getaffinity(0))))

    @classmethod
    def from_arguments(cls, arguments: dict[str, str]) -> "Instance":
        """From the arguments of `initialize`."""
        config = json.loads(arguments["model_config"])
        accelerators = config.get("optimization", {}).get("execution_accelerators", {})
        if accelerators.get("gpu_execution_accelerator"):
            pb_utils.Logger.log_warn(f"{config['name']}: the stand-in takes no notice of GPU accelerators")
        return cls(
            model_file=Path(
                arguments["model_repository"], arguments["model_version"], config["default_model_filename"]
            ),
            inputs=tuple(entry["name"] for entry in config["input"]),
            outputs=tuple(entry["name"] for entry in config["output"]),
            device_id=int(arguments["model_instance_device_id"]) if arguments["model_instance_kind"] == "GPU" else None,
            cpu_accelerators=tuple(entry["name"] for entry in accelerators.get("cpu_execution_accelerator", [])),
            parameters={name: value["string_value"] for name, value in config.get("parameters", {}).items()},
        )


class StandIn:
    """A Triton Python model that runs a network file. A subclass loads it and runs it."""

    instance: Instance

    def initialize(self, args: dict[str, str]) -> None:
        """Called once by Triton, in the process of this instance."""
        self.instance = Instance.from_arguments(args)
        self.load()

    def load(self) -> None:
        """Load `self.instance.model_file`; what it raises keeps the model from loading."""
        raise NotImplementedError

    def run(self, inputs: Arrays) -> Arrays:
        """Arrays in the order of the config's inputs -> arrays in the order of its outputs."""
        raise NotImplementedError

    def run_in_parts(self, inputs: Arrays) -> Arrays:
        """`run`, with no more than `max_clips_at_once` clips at a time.

        A network's outputs are means over the views of a video, so the views may come in parts, too.
        """
        most = int(self.instance.parameters.get("max_clips_at_once", 0))
        if not most or len(inputs) != 1:
            return self.run(inputs)
        (clips,) = inputs
        together = max(1, most // clips.shape[1])
        shares = [self._run_views(clips[start : start + together], most) for start in range(0, len(clips), together)]
        return [join(column) for column in zip(*shares, strict=True)]

    def _run_views(self, clips: NDArray[Any], most: int) -> Arrays:
        views = clips.shape[1]
        parts = [clips[:, start : start + most] for start in range(0, views, most)]
        if len(parts) == 1:
            return self.run(parts)
        means = zip(*(self.run([part]) for part in parts), strict=True)
        weights = [part.shape[1] for part in parts]
        return [np.average(column, axis=0, weights=weights).astype(np.float32) for column in means]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Called by Triton with the requests of one batch; gives their answers in the same order."""
        arrays = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.instance.inputs]
            for request in requests
        ]
        try:
            outputs = self.run_in_parts([join(column) for column in zip(*arrays, strict=True)])
        except Exception as error:
            failure = pb_utils.TritonError(f"{self.instance.model_file.name}: {error}", pb_utils.TritonError.INTERNAL)
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(columns[0]) for columns in arrays])[:-1]
        shares = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [self._answer(request, share) for request, share in zip(requests, shares, strict=True)]

    def _answer(self, request: Any, arrays: Arrays) -> Any:
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, array)
                for name, array in zip(self.instance.outputs, arrays, strict=True)
                if name in wanted
            ]
        )


def join(column: Arrays) -> NDArray[Any]:
    """One batch of the requests' batches; a single one is not copied."""
    return np.concatenate(column) if len(column) > 1 else column[0]
