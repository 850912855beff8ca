"""An ONNX file of a user: read, compared with its contract, and extended by the arithmetic around the network.

Nodes are added to its graph, and its own stay as they are.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from clipserve.contract import ClipContract
from clipserve_export.clips import random_clips
from clipserve_export.damaged_files import explain_start
from clipserve_export.errors import ContractError, WeightsError
from clipserve_export.formats import ONNX_IR_VERSION, explain_runtime, open_session
from clipserve_export.network import ActionNetwork
from clipserve_export.own.interface import FROM_CLIP, Interface
from clipserve_export.own.network import CHECKED_CLIPS, CHECKED_SEED, require_answers, require_any_number
from clipserve_export.own.onnx_nodes import Nodes, all_graphs, opset_of, prefix_names
from clipserve_export.specs import ModelSpec

# 13: Softmax works on one axis. 21: the newest that ONNX Runtime 1.19 runs, which container 24.10 has.
OLDEST_OPSET, NEWEST_OPSET = 13, 21
MOST_BYTES = 2**31 - 2**20  # of protobuf's 2 GiB; the nodes that are added take the rest
PREFIX = "adopted/"  # of the names of the file's own tensors
ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
NUMBERS = {f"tensor({kind})" for kind in ("float", "float16", "double", *(f"int{n}" for n in (8, 16, 32, 64)))}
HOW_TO_FREE = (
    "export it again with a free batch, for example torch.onnx.export(..., dynamo=True, dynamic_shapes=({0: 'batch'},))"
)


def files_beside(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files that hold the weights of an ONNX file, apart from `path` itself."""
    names = set()
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return [path.parent / name for name in sorted(names)]


def read_onnx(path: Path, spec: ModelSpec, interface: Interface) -> "OnnxNetwork":
    """The network of an ONNX file. Raises ContractError or WeightsError."""
    interface.refuse("head", reason="an ONNX file has no modules: features names the output with the embedding")
    try:
        model = onnx.load(path, load_external_data=False)
        total = sum(file.stat().st_size for file in [path, *files_beside(model, path)] if file.is_file())
        if total > MOST_BYTES:
            raise WeightsError(
                f"{path} has {total / 2**30:.2f} GiB with its weights, and the ONNX file of a model must have less than"
                " 2 GiB: store the weights in float16, or adopt the network as TorchScript"
            )
        onnx.load_external_data_for_model(model, str(path.parent))
        session = open_session(path)
    except WeightsError:
        raise
    except Exception as error:  # protobuf, onnx and ONNX Runtime raise errors of their own
        require_memory(error, path)
        reason = explain_start(path) or explain_runtime(error)
        raise WeightsError(
            f"{path} cannot be read as ONNX: {reason}. Copy or download it again, with the files of weights beside it,"
            " or export it again"
        ) from error
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ContractError(
            f"{path} has opset {opset}, but must have {OLDEST_OPSET} to {NEWEST_OPSET}: export it again with"
            " opset_version=20"
        )
    interface = choose_names(session, interface, path)
    require_types(session, spec.contract, interface, path)
    plain = OnnxNetwork(model, session, replace(spec.contract, feature_size=None), interface)
    frames = plain.normalise(random_clips(spec.geometry, batch=CHECKED_CLIPS, views=1, seed=CHECKED_SEED)[:, 0])
    try:
        values = plain.run_file(frames)
    except Exception as error:  # ONNX Runtime's own kinds
        require_memory(error, path)
        raise ContractError(
            f"{path} does not take {CHECKED_CLIPS} clips at once: {explain_runtime(error)}. Its input has a free"
            f" batch, but something inside is fixed: {HOW_TO_FREE}, traced with a batch of 2"
        ) from error
    require_answers(values[0], spec.contract, interface)
    require_any_number(lambda clips: plain.run_file(clips)[0], frames, values[0])
    size = values[1].shape[1] if interface.features and values[1].ndim == 2 else None
    if interface.features and size is None:
        raise ContractError(f"{path}: features {interface.features!r} is {list(values[1].shape)}, not [batch, D]")
    if spec.contract.feature_size not in (None, size):
        raise ContractError(
            f"the contract says feature_size = {spec.contract.feature_size}, and the file"
            + (f" answers {size} values" if size else " has none: name its output by features = under [network]")
        )
    contract = replace(spec.contract, classes=values[0].shape[1], feature_size=size)
    return OnnxNetwork(model, session, contract, interface)


def require_memory(error: Exception, path: Path) -> None:
    """Raise WeightsError if the error of a library is about memory."""
    if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
        raise WeightsError(
            f"{path} takes more memory than there is: give this machine, or its container, more memory"
        ) from error


def choose_names(session: Any, interface: Interface, path: Path) -> Interface:
    """The interface with the names of the file's input and output. Raises ContractError."""
    chosen = {}
    for what, values in (("input", session.get_inputs()), ("scores", session.get_outputs())):
        names, wanted = [value.name for value in values], getattr(interface, what)
        if wanted and wanted not in names:
            raise ContractError(f"{path} has no {what} {wanted!r}; it has {', '.join(names)}")
        if not wanted and len(names) > 1:
            raise ContractError(
                f'{path} has {len(names)} of them, {", ".join(names)}: name one by {what} = "{names[0]}" under'
                " [network] in the contract"
            )
        chosen[what] = wanted or names[0]
    outputs = [value.name for value in session.get_outputs()]
    if interface.features and interface.features not in outputs:
        raise ContractError(f"{path} has no features {interface.features!r}; it has {', '.join(outputs)}")
    if len(session.get_inputs()) > 1:
        raise ContractError(f"{path} has {len(session.get_inputs())} inputs, but a network for clips must have one")
    return replace(interface, **chosen)


def require_types(session: Any, contract: ClipContract, interface: Interface, path: Path) -> None:
    """Raise ContractError unless the file takes the clip of the contract, with a free batch, and answers numbers."""
    given = next(value for value in session.get_inputs() if value.name == interface.input)
    wanted = interface.input_dims(contract)
    kinds = {"float32": "tensor(float)", "float16": "tensor(float16)", "uint8": "tensor(uint8)"}
    if given.type != kinds[interface.type]:
        raise ContractError(
            f"{path}: the input {given.name!r} is {given.type}, but the contract says {interface.type}: correct type"
            " under [network]"
        )
    outputs = {value.name: value.type for value in session.get_outputs()}
    for what, name in (("scores", interface.scores), ("features", interface.features)):
        if name and outputs[name] not in NUMBERS:
            raise ContractError(
                f"{path}: the output {name!r} is {outputs[name]}, but {what} must be a tensor of numbers: name another"
                f" output by {what} under [network] in the contract"
            )
    dims = list(given.shape)
    fits = len(dims) == 5 and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(dims[1:], wanted, strict=False)
    )
    if not fits:
        raise ContractError(
            f"{path}: the input {given.name!r} is {dims}, but the contract's clip is"
            f" {interface.describe_input(contract)}: correct frames, crop, or layout under [network]"
        )
    if isinstance(dims[0], int):
        raise ContractError(
            f"{path}: the input {given.name!r} is {dims}: it takes exactly {dims[0]} clips, but a server runs several"
            f" requests and views at once; {HOW_TO_FREE}"
        )


class OnnxNetwork(ActionNetwork):
    """An ONNX file as a served network: run by ONNX Runtime, with the arithmetic around it in torch.

    `write` puts that arithmetic into the file. The check after the export compares both.
    """

    def __init__(self, model: onnx.ModelProto, session: Any, contract: ClipContract, interface: Interface) -> None:
        super().__init__(contract)
        self.model, self.session, self.interface = model, session, interface

    def run_file(self, frames: Tensor) -> list[Tensor]:
        """float [B, 3, T, S, S] -> the answers [B, K], and the features [B, D] if there are any."""
        names = [self.interface.scores, *filter(None, [self.interface.features])]
        clips = self.interface.arrange(frames).contiguous().numpy()
        answers: list[Any] = self.session.run(names, {self.interface.input: clips})
        return [torch.from_numpy(np.asarray(values)).float() for values in answers]

    def answer(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores, and features if the file has them."""
        answers, *features = self.run_file(frames)
        scores = answers.softmax(-1) if self.interface.answers == "logits" else answers
        return scores, features[0] if features else None

    def write(self, path: Path) -> None:
        """Write the file with CLIP, SCORES and FEATURES."""
        onnx.save(extend_graph(self.model, self.contract, self.interface), path)


def extend_graph(original: onnx.ModelProto, contract: ClipContract, interface: Interface) -> onnx.ModelProto:
    """The same network from CLIP uint8 [N, V, T, S, S, 3] to SCORES float [N, K] and FEATURES float [N, D]."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    model.ir_version = ONNX_IR_VERSION
    graph = model.graph
    prefix_names(graph, PREFIX)
    builder = Nodes(opset_of(model), "clipserve/")
    side = contract.crop
    clips = builder.reshape("CLIP", [-1, contract.frames, side, side, 3])
    if contract.channel_order == "BGR":
        clips = builder.add("Gather", clips, builder.constant([2, 1, 0]), axis=4)
    if interface.type != "uint8":
        clips = builder.add("Cast", clips, to=TensorProto.FLOAT)
        clips = builder.add("Div", clips, builder.constant(255.0))
        clips = builder.add("Sub", clips, builder.constant(list(contract.mean)))
        clips = builder.add("Div", clips, builder.constant(list(contract.deviation)))
        clips = builder.add("Cast", clips, to=ELEMENT_TYPES[interface.type])
    builder.add("Transpose", clips, perm=list(FROM_CLIP[interface.layout]), output=PREFIX + interface.input)
    before = list(builder.nodes)
    builder.nodes.clear()
    outputs = []
    answered = [("SCORES", interface.scores, contract.classes), ("FEATURES", interface.features, contract.feature_size)]
    for name, own_name, size in answered:
        if not own_name or size is None:
            continue
        values = builder.add("Cast", PREFIX + own_name, to=TensorProto.FLOAT)
        if name == "SCORES" and interface.answers == "logits":
            values = builder.add("Softmax", values, axis=-1)
        values = builder.add("Reshape", values, builder.batch_and_views(size))
        builder.mean(values, output=name)
        answer_dims: list[str | int | None] = ["N", size]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, answer_dims))
    nodes = [*before, *graph.node, *builder.nodes]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(builder.constants)
    dims: list[str | int | None] = ["N", "V", contract.frames, side, side, 3]
    graph.input.append(helper.make_tensor_value_info("CLIP", TensorProto.UINT8, dims))
    graph.output.extend(outputs)
    onnx.checker.check_model(model)
    return model
