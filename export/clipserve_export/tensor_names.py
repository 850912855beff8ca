"""Names in an ONNX file that tell its weights apart, for caches that go by names alone.

ONNX Runtime names a cached TensorRT engine by the file's name and the names of its tensors (TRTGenerateId in
tensorrt_execution_provider_utils.h). The weights are inside the engine and not in its name: a network trained anew,
or another version of it, would be answered by the old one's engine.
"""

import hashlib
from pathlib import Path

import onnx


def mark_tensors(path: Path, origin: str) -> str:
    """Give every tensor between the nodes of the file a suffix made of `origin`; gives the suffix."""
    model = onnx.load(path)
    graph = model.graph
    suffix = "_" + hashlib.sha256(origin.encode()).hexdigest()[:12]
    kept = {value.name for value in graph.output}
    marked = {name: name + suffix for node in graph.node for name in node.output if name and name not in kept}
    for node in graph.node:
        node.input[:] = [marked.get(name, name) for name in node.input]
        node.output[:] = [marked.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = marked.get(value.name, value.name)
    onnx.save(model, path)
    return suffix
