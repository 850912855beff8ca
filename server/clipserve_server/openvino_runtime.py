"""ONNX files through OpenVINO: two to four times as fast as ONNX Runtime for X3D on a CPU.

Used where a config names the execution accelerator `openvino`, as the C++ ONNX Runtime backend of the container does.
A network is compiled for one clip: with sizes known, OpenVINO has faster kernels than for any number of clips, and
many at once gain nothing on a CPU. benchmarks/networks.py measures both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from clipserve_server.precision import choose_precision

_HINTS = {"fp32": "f32", "bf16": "bf16"}
# Every stream has memory of its own, for one clip.
MOST_STREAMS = 8

Clips = NDArray[np.uint8]
Answers = list[NDArray[np.float32]]


class OpenVinoRuntime:
    """One network as export writes it, on the cores that this process may use.

    A clip that comes alone is run by all threads. Several are shared out among streams, none of which waits for
    another; where decoding takes its part of the cores, that is up to half as fast again.

    Args:
        model_file: model.onnx, with one input, clips [N, V, T, S, S, 3]; what export wrote of it lies beside it.
        outputs: names of the outputs, which are means over the views, in the order wanted.
        threads: how many to run on.
        precision: one of PRECISIONS; see precision.py.

    Raises:
        ServerStartError: a precision that is not to be had.
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
            # Left out, OpenVINO takes bf16 wherever the processor has it.
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            # Which cores are free is the kernel's business: a container may not own the first ones.
            "ENABLE_CPU_PINNING": False,
        }
        alone = core.compile_model(model, "CPU", {**hints, "NUM_STREAMS": 1})
        together = core.compile_model(model, "CPU", {**hints, "NUM_STREAMS": self.streams})
        self._places = [alone.outputs.index(alone.output(name)) for name in outputs]
        self._alone = alone.create_infer_request()
        self._together = [together.create_infer_request() for _ in range(self.streams)]

    def run(self, feeds: dict[str, NDArray[Any]]) -> Answers:
        """Arrays by the names of the inputs -> arrays in the order of `outputs`."""
        (clips,) = feeds.values()
        videos, views = clips.shape[:2]
        answers = self._run_each(clips.reshape(videos * views, 1, 1, *clips.shape[2:]))
        columns = [np.concatenate(column) for column in zip(*answers, strict=True)]
        return [column.reshape(videos, views, -1).mean(1) for column in columns]

    def _run_each(self, clips: Clips) -> list[Answers]:
        """The outputs for each clip, in order."""
        if len(clips) == 1:
            self._alone.infer([clips[0]], share_inputs=True)
            return [self._read(self._alone)]
        answers: list[Answers] = []
        for number, clip in enumerate(clips):
            request = self._together[number % self.streams]
            if number >= self.streams:
                request.wait()
                answers.append(self._read(request))
            request.start_async([clip], share_inputs=True)
        for number in range(len(answers), len(clips)):
            request = self._together[number % self.streams]
            request.wait()
            answers.append(self._read(request))
        return answers

    def _read(self, request: Any) -> Answers:
        # The request owns what it returns, until its next run.
        return [np.array(request.get_output_tensor(place).data) for place in self._places]
