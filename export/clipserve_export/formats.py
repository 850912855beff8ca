"""The two file formats: how each is written, and how it is run for the check.

ONNX files are for ONNX Runtime 1.19 and later (the oldest supported Triton container is 24.10): opset 20, with IR
version 10. TorchScript is traced and frozen, because scripting fails on every hub model of pytorchvideo 0.1.5.
"""

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipserve_export.clips import random_clips
from clipserve_export.network import ActionNetwork, as_tuple
from clipserve_export.own.onnx_nodes import rename_tensors
from clipserve_export.specs import Geometry
from clipserve_export.target import Target
from clipserve_export.tuning import lay_out, tune

FormatName = Literal["onnx", "torchscript"]
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], ...]]  # SCORES, and FEATURES if there are any

ONNX_OPSET, ONNX_IR_VERSION = 20, 10


class Writer(Protocol):
    """Writes a network into a file, in the layout for `target`."""

    def __call__(self, network: ActionNetwork, geometry: Geometry, path: Path, *, target: Target = "cpu") -> None: ...


class Loader(Protocol):
    """Returns a function that runs a file on a device of torch, and returns arrays on the host."""

    def __call__(self, path: Path, *, device: str = "cpu") -> Run: ...


@dataclass(frozen=True)
class Format:
    """A file format, the Triton backend that runs it, and how to write and load it."""

    name: FormatName
    backend: str
    filename: str
    write: Writer
    load: Loader


def _example(geometry: Geometry) -> Tensor:
    # Two of each: traced with a batch of one, the ONNX exporter fixes the batch of MViT without an error.
    return random_clips(geometry, batch=2, views=2, seed=0)


def write_onnx(network: ActionNetwork, geometry: Geometry, path: Path, *, target: Target = "cpu") -> None:
    """Write `network` as one ONNX file with symbolic batch (N) and views (V). The file is the same for every target."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            tune(network),
            (_example(geometry),),
            input_names=["CLIP"],
            output_names=["SCORES", "FEATURES"][: 1 if network.contract.feature_size is None else 2],
            dynamic_shapes={"clip": {0: "N", 1: "V"}},
            dynamo=True,
            opset_version=ONNX_OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = ONNX_IR_VERSION
    # The exporter records the source line of every node, with paths of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    require_dynamic(model, geometry)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def require_dynamic(model: onnx.ModelProto, geometry: Geometry) -> None:
    """Raise ValueError unless batch and views are symbols, and the other dimensions of the input are numbers."""
    side = geometry.crop
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    if dims != ["N", "V", geometry.frames, side, side, 3]:
        raise ValueError(f"the ONNX exporter fixed or freed a dimension: CLIP is {dims}")


def mark_tensors(path: Path) -> str:
    """Add a hash of an ONNX file to the name of every tensor between its nodes. Returns what was added.

    ONNX Runtime names a cached TensorRT engine by the file's name and the names of its tensors (TRTGenerateId in
    tensorrt_execution_provider_utils.h). The engine holds the weights and every other constant, such as the mean, but
    its name does not depend on them. Without the hash, the engine of an older version would answer for a network that
    was trained again.
    """
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    graph = model.graph
    suffix = "_" + hashlib.sha256(content).hexdigest()[:12]
    kept = {value.name for value in graph.output}
    marked = {name: name + suffix for node in graph.node for name in node.output if name and name not in kept}
    rename_tensors(graph.node, marked)
    for value in graph.value_info:
        value.name = marked.get(value.name, value.name)
    onnx.save(model, path)
    return suffix


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime on the CPU, with memory as in a server. It prints nothing: its errors say the same."""
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def explain_runtime(error: Exception) -> str:
    """The first line of an error of ONNX Runtime, without its number and its source lines."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/onnxruntime_src/.*?\) ", "", line)


def load_onnx(path: Path, *, device: str = "cpu") -> Run:
    """A function that runs the file in ONNX Runtime, on the CPU for every device."""
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        answers = dict(zip(names, session.run(names, {"CLIP": clip}), strict=True))
        return tuple(answers[name] for name in ("SCORES", "FEATURES") if name in answers)

    return run


def write_torchscript(network: ActionNetwork, geometry: Geometry, path: Path, *, target: Target = "cpu") -> None:
    """Trace, freeze and save `network`. Batch and views stay free, because no operator fixes them.

    A traced convolution stores whether it may round its inputs to TF32. It may not: float32 stays float32 on every GPU.
    """
    with warnings.catch_warnings(), torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lay_out(tune(network), target), _example(geometry), check_trace=False)
        frozen = torch.jit.freeze(traced)
        _free_devices(frozen.graph)
        torch.jit.save(frozen, path)


def _free_devices(graph: Any) -> None:
    """Let a traced network make its tensors, as torch.arange does, on the device of its clips.

    Tracing has fixed the device of this machine, and a script without a device means the CPU. On another one such a
    network fails: its tensors are on two devices.
    """
    device = graph.create("prim::device", [list(graph.inputs())[-1]], 1)
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for constant in graph.findAllNodes("prim::Constant"):
        if constant.output().type().kind() == "DeviceObjType":
            constant.output().replaceAllUsesWith(device.output())
    for node in _nodes(graph):
        inputs = list(node.inputs())
        if node.kind().startswith("aten::") and not any(value.type().kind() == "TensorType" for value in inputs):
            arguments = torch._C.parse_schema(node.schema()).arguments
            for place, (argument, value) in enumerate(zip(arguments, inputs, strict=False)):
                if argument.name == "device" and value.type().kind() == "NoneType":
                    node.replaceInput(place, device.output())


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def load_torchscript(path: Path, *, device: str = "cpu") -> Run:
    """A function that runs the file in LibTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(path, map_location=device)

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        with torch.no_grad():
            answers = module(torch.from_numpy(clip).to(device))
        return tuple(answer.cpu().numpy() for answer in as_tuple(answers))

    return run


FORMATS: dict[FormatName, Format] = {
    "onnx": Format("onnx", "onnxruntime", "model.onnx", write_onnx, load_onnx),
    "torchscript": Format("torchscript", "pytorch", "model.pt", write_torchscript, load_torchscript),
}
