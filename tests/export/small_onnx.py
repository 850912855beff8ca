"""ONNX files of a few nodes, as somebody brings them, the contract of their clips, and their adoption."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipserve_export.specs import Geometry
from tests.export.conftest import Run

CONTRACT = """
frames = 4
stride = 8
short_side = 24
crop = 16
mean = [0.485, 0.456, 0.406]
deviation = [0.229, 0.224, 0.225]
channel_order = "BGR"

[network]
layout = "BTCHW"
scores = "logits"
features = "embedding"
"""
GEOMETRY = Geometry(frames=4, stride=8, short_side=24, crop=16)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
WEIGHTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def contract_of(kind: int) -> str:
    """CONTRACT for a file whose frames are of this type."""
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
    text = CONTRACT.replace("[network]", f'[network]\ntype = "{names[kind]}"')
    if kind == TensorProto.UINT8:
        text = "\n".join(line for line in text.splitlines() if not line.startswith(("mean", "deviation")))
    return text


def write_beside(folder: Path, contract: str) -> None:
    """What `adopt` takes beside a file: mine.toml and mine.txt."""
    (folder / "mine.toml").write_text(contract)
    (folder / "mine.txt").write_text("one\ntwo\nthree\n")


def adopt(run: Run, folder: Path, path: Path, *more: str | Path | int, name: str = "mine") -> tuple[int, str]:
    """`clipserve adopt` into folder/repository: its status and what it said."""
    files = ["--contract", folder / "mine.toml", "--labels", folder / "mine.txt"]
    return run("adopt", path, *files, "--name", name, "--repository", folder / "repository", *more)


def write_onnx(
    path: Path,
    *,
    batch: str | int = "batch",
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    rows: int = -1,
    softmax: bool = False,
    branches: bool = False,
    regressor: bool = False,
    beside: bool = False,
    weights_seed: int = 0,
    classifier: bool = False,
    elements: int = 0,
) -> Path:
    """A network of a few nodes: means over height and width of [batch, 4, 3, 16, 16], then a matrix.

    rows: of a shape inside; -1: free.
    branches: the matrix is in the branches of an If, which use tensors around them.
    regressor: scikit-learn's operator takes the place of the matrix. ONNX Runtime knows it, OpenVINO does not.
    beside: the weights lie in a file beside this one.
    weights_seed: 0 makes WEIGHTS.
    classifier: there is another output, with the name of the best class.
    elements: of a tensor that has no use.
    """
    shape = numpy_helper.from_array(np.array([rows, 12]), "shape")
    values = np.random.default_rng(weights_seed).normal(size=WEIGHTS.shape).astype(np.float32)
    weights = numpy_helper.from_array(values, "weights")
    constants = [shape, weights]
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["flat"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "weights"], ["raw" if softmax else "logits"]),
    ]
    constants.append(numpy_helper.from_array(np.array([0, 12, 16, 16]), "channels"))
    nodes.insert(1, helper.make_node("Reshape", ["pixels", "channels"], ["flat"]))
    if branches:
        nodes[-1] = make_branches(nodes[-1])
        constants.append(numpy_helper.from_array(np.array(True), "yes"))
    if regressor:
        attributes = {"coefficients": WEIGHTS.T.ravel().tolist(), "intercepts": [0.0] * 3, "targets": 3}
        nodes[-1] = helper.make_node("LinearRegressor", ["embedding"], ["logits"], domain="ai.onnx.ml", **attributes)
    outputs = []
    if classifier:
        attributes = {
            "coefficients": [0.0] * 36,
            "intercepts": [0.0] * 3,
            "classlabels_strings": ["one", "two", "three"],
        }
        nodes.append(
            helper.make_node("LinearClassifier", ["embedding"], ["label", "votes"], domain="ai.onnx.ml", **attributes)
        )
        outputs.append(helper.make_tensor_value_info("label", TensorProto.STRING, [batch]))
    if elements:
        constants.append(numpy_helper.from_array(np.array([elements]), "elements"))
        nodes.append(helper.make_node("ConstantOfShape", ["elements"], ["zeros"]))
        outputs.append(helper.make_tensor_value_info("zeros", TensorProto.FLOAT, [elements]))
    if softmax:
        nodes.append(helper.make_node("Softmax", ["raw"], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("frames", kind, [batch, 4, 3, 16, 16])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 12]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3]),
            *outputs,
        ],
        constants,
    )
    opsets = [
        helper.make_opsetid("", opset),
        *([helper.make_opsetid("ai.onnx.ml", 3)] if regressor or classifier else []),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # Above 100 bytes: ONNX Runtime takes shapes only from the file itself.
    outside = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 100} if beside else {}
    onnx.save_model(model, path, **outside)
    return path


def make_branches(node: onnx.NodeProto) -> onnx.NodeProto:
    """An If with this node in one branch, and in the other as well."""
    name, branches = node.output[0], []
    for number in range(2):
        inner = helper.make_node(node.op_type, node.input, [f"inner_{number}"])
        answer = helper.make_tensor_value_info(f"inner_{number}", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([inner], f"branch_{number}", [], [answer]))
    return helper.make_node("If", ["yes"], [name], then_branch=branches[0], else_branch=branches[1])
