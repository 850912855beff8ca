"""Nodes that are added to an ONNX graph, and names that are changed in one.

A node may hold graphs, the branches of an If or the body of a Loop, which use the tensors around it by their names.
"""

from collections.abc import Iterable, Iterator, Mapping
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


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0 if the file names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those that its nodes hold."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from all_graphs(inner)


def prefix_names(graph: onnx.GraphProto, prefix: str) -> None:
    """Put `prefix` ahead of the name of every tensor and node, inner graphs included. An absent input stays ""."""

    def prefixed(name: str) -> str:
        return prefix + name if name else ""

    for each in all_graphs(graph):
        for node in each.node:
            node.name = prefixed(node.name)
            node.input[:] = map(prefixed, node.input)
            node.output[:] = map(prefixed, node.output)
        sparse = [part for tensor in each.sparse_initializer for part in (tensor.values, tensor.indices)]
        for named in (*each.input, *each.output, *each.value_info, *each.initializer, *sparse):
            named.name = prefixed(named.name)
        del each.quantization_annotation[:]  # notes for tools, by the names of before


def rename_tensors(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename tensors between nodes, and where inner graphs use them. A graph's inputs and outputs keep their names."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            rename_tensors(inner.node, names)


def read_names(node: onnx.NodeProto) -> set[str]:
    """What a node reads, its inner graphs included."""
    names = set(node.input)
    for inner in inner_graphs(node):
        names |= {value.name for value in inner.output}
        names |= {name for each in inner.node for name in read_names(each)}
    return names
