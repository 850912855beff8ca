"""Nodes that are added to an ONNX graph."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

AXES_ARE_INPUTS = 18  # of ReduceMean, from this opset on


class Nodes:
    """Nodes and constants.

    Args:
        opset: of the graph.
        prefix: of their names, which no tensor of the graph has.
    """

    def __init__(self, opset: int, prefix: str) -> None:
        self.opset, self.prefix, self.added = opset, prefix, 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node. Returns the name of its output."""
        self.added += 1
        name = output or f"{self.prefix}{kind}_{self.added}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: list[int] | list[float] | float) -> str:
        """Add a constant: int64 for whole numbers, else float32."""
        whole = isinstance(values, list) and all(isinstance(value, int) for value in values)
        return self.array(np.array(values, dtype=np.int64 if whole else np.float32))

    def array(self, values: npt.NDArray[Any]) -> str:
        """Add an array as a constant."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def reshape(self, values: str, dims: list[int]) -> str:
        """Add a node that reshapes."""
        return self.add("Reshape", values, self.constant(dims))

    def batch_and_views(self, size: int) -> str:
        """The shape [N, V, size], from that of CLIP."""
        shape = self.add("Shape", "CLIP")
        leading = self.add("Slice", shape, self.constant([0]), self.constant([2]))
        return self.add("Concat", leading, self.constant([size]), axis=0)

    def mean(self, values: str, *, output: str) -> str:
        """The mean over views."""
        if self.opset >= AXES_ARE_INPUTS:
            return self.add("ReduceMean", values, self.constant([1]), output=output, keepdims=0)
        return self.add("ReduceMean", values, output=output, axes=[1], keepdims=0)
