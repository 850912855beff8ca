"""Runs ONNX files in OpenVINO: two to four times as fast as ONNX Runtime for X3D on a CPU.

Used where a config names the execution accelerator `openvino`, as in the C++ ONNX Runtime backend of the container. A
network is compiled for one clip: OpenVINO has faster kernels for a known size than for any number of clips, and a batch
gains nothing on a CPU. benchmarks/networks.py measures both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from clipserve_server.options import choose_precision

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# Every stream has its own memory, for one clip.
MOST_STREAMS = 8

Clips = NDArray[np.uint8]
Answers = list[NDArray[np.float32]]


class OpenVinoRuntime:
    """One network as export writes it, on the cores that this process may use.

    All threads run a single clip. Several clips are distributed over streams that do not wait for each other; where
    decoding uses some of the cores, that is up to 1.5 times as fast.

    Args:
        model_file: model.onnx, with one input, clips [N, V, T, S, S, 3], and its export.json in the same folder.
        outputs: names of the outputs, which are means over the views; run() returns them in this order.
        threads: how many threads to run on.
        precision: a CpuPrecision; see options.py.

    Raises:
        ServerStartError: the processor does not have this precision.
    """

    def __init__(self, model_file: Path, outputs: Sequence[str], *, threads: int, precision: str) -> None:
        core = openvino.Core()
        self.precision = choose_precision(
            precision,
            processor_has_bf16="BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
            record=model_file.with_name("export.json"),
        )
        self.streams = min(threads, MOST_STREAMS)
        model = core.read_model(model_file)
        clip = model.input(0).partial_shape
        clip[0] = clip[1] = 1
        model.reshape({model.input(0): clip})
        hints = {
            # By default OpenVINO uses bf16 wherever the processor has it.
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            # OpenVINO would pin threads to the first cores, which a container may not own.
            "ENABLE_CPU_PINNING": False,
        }
        single = core.compile_model(model, "CPU", {**hints, "NUM_STREAMS": 1})
        parallel = core.compile_model(model, "CPU", {**hints, "NUM_STREAMS": self.streams})
        self._indices = [single.outputs.index(single.output(name)) for name in outputs]
        self._single = single.create_infer_request()
        self._parallel = [parallel.create_infer_request() for _ in range(self.streams)]

    def run(self, inputs: dict[str, NDArray[Any]]) -> Answers:
        """Arrays by input name -> arrays in the order of `outputs`."""
        (clips,) = inputs.values()
        videos, views = clips.shape[:2]
        answers = self._run_each(clips.reshape(videos * views, 1, 1, *clips.shape[2:]))
        columns = [np.concatenate(column) for column in zip(*answers, strict=True)]
        return [column.reshape(videos, views, -1).mean(1) for column in columns]

    def _run_each(self, clips: Clips) -> list[Answers]:
        """The outputs for each clip, in order."""
        if len(clips) == 1:
            self._single.infer([clips[0]], share_inputs=True)
            return [self._read(self._single)]
        answers: list[Answers] = []
        for number, clip in enumerate(clips):
            request = self._parallel[number % self.streams]
            if number >= self.streams:
                request.wait()
                answers.append(self._read(request))
            request.start_async([clip], share_inputs=True)
        for number in range(len(answers), len(clips)):
            request = self._parallel[number % self.streams]
            request.wait()
            answers.append(self._read(request))
        return answers

    def _read(self, request: Any) -> Answers:
        # A copy: the request overwrites its output tensors in its next run.
        return [np.array(request.get_output_tensor(index).data) for index in self._indices]
