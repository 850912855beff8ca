"""ONNX files through OpenVINO: two to three times as fast as ONNX Runtime for X3D on a CPU.

Used where a config names the execution accelerator `openvino`, as the C++ ONNX Runtime backend of
the container does. benchmarks/networks.py measures it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from clipserve_server.precision import choose_precision

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoRuntime:
    """One network, compiled for the cores that this process may use.

    Args:
        model_file: model.onnx; what export wrote of it lies beside it.
        outputs: names of the outputs, in the order wanted.
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
        compiled = core.compile_model(
            core.read_model(model_file),
            "CPU",
            {
                # Left out, OpenVINO takes bf16 wherever the processor has it.
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                # Which cores are free is the kernel's business: a container may not own the first ones.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request = compiled.create_infer_request()
        self._outputs = [compiled.output(name) for name in outputs]

    def run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Arrays by the names of the inputs -> arrays in the order of `outputs`."""
        results = self._request.infer(feeds, share_inputs=True)
        # The request owns what it returns, until its next run.
        return [np.array(results[output]) for output in self._outputs]
