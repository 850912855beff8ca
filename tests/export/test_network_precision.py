"""A network in half precision: the same outside, close enough inside, and told apart from the others."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from clipserve_export.clips import random_clips
from clipserve_export.errors import ParityError
from clipserve_export.exporting import export_network
from clipserve_export.families.adapter import served_network
from clipserve_export.formats import FORMATS, FormatName, mark_tensors
from clipserve_export.parity import compare
from clipserve_export.precision import TOLERANCES, in_precision
from clipserve_export.serving.choices import Precision
from clipserve_export.sources import PublishedSource
from clipserve_export.weights import load_weights
from tests.export.conftest import MOTION, Run


def export_motion(repository: Path, form: FormatName, precision: Precision, *, reuse: bool = False) -> bool:
    record = export_network(
        PublishedSource(MOTION), format_name=form, precision=precision, repository=repository, reuse=reuse
    )
    return record is not None


@pytest.mark.parametrize(
    ("form", "precision"), [pytest.param("onnx", "fp16", marks=pytest.mark.long), ("torchscript", "bf16")]
)
def test_an_export_in_half_says_so_and_what_it_was_allowed(
    tmp_path: Path, form: FormatName, precision: Precision
) -> None:
    assert export_motion(tmp_path, form, precision)
    folder = tmp_path / "motion_net" / "1"
    record = json.loads((folder / "export.json").read_text())
    assert record["precision"] == precision
    assert record["parity"]["tolerance"] == vars(TOLERANCES[precision])
    # More than float32 is ever off, or nothing was shortened.
    assert 1e-4 < record["parity"]["feature_error"] <= TOLERANCES[precision].features
    assert export_motion(tmp_path, form, precision, reuse=True) is False
    clip = random_clips(MOTION.geometry, batch=2, views=2, seed=3).numpy()
    scores, features = FORMATS[form].load(folder / FORMATS[form].filename)(clip)
    assert (scores.dtype, features.dtype) == (np.float32, np.float32)
    # Softmax and means in float32: in half their sums would be off in the third digit.
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_only_the_trunk_is_half_and_clips_and_answers_stay_what_the_contract_says(
    tmp_path: Path, repository: Path, run: Run
) -> None:
    before = (repository / "motion_net" / "1" / "model.onnx").stat().st_size
    status, said = run("export", "motion", "--precision", "fp16", "--repository", repository)
    assert status == 0, said
    assert "fp16" in said
    assert "allowed 3e-02" in said
    path = repository / "motion_net" / "1" / "model.onnx"
    assert path.stat().st_size < 0.75 * before
    session = onnxruntime.InferenceSession(path)
    assert [entry.type for entry in session.get_inputs()] == ["tensor(uint8)"]
    assert [entry.type for entry in session.get_outputs()] == ["tensor(float)", "tensor(float)"]
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    convolved = {types.get(node.output[0]) for node in model.graph.node if node.op_type == "Conv"}
    softened = {types.get(node.output[0]) for node in model.graph.node if node.op_type == "Softmax"}
    assert (convolved, softened) == ({onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT})


def test_a_wrong_network_is_outside_the_tolerance_of_fp16_as_well(tmp_path: Path) -> None:
    weights = load_weights(MOTION, "pretrained")
    network = served_network(MOTION, weights.state)
    path = tmp_path / "model.pt"
    FORMATS["torchscript"].write(in_precision(network, "fp16"), MOTION.geometry, path)
    network.projection.bias += torch.eye(12)[0]
    parity = compare(network, FORMATS["torchscript"].load(path), MOTION.geometry, tolerance=TOLERANCES["fp16"])
    with pytest.raises(ParityError, match="nothing was written"):
        parity.require()


def test_the_tensors_of_another_file_have_other_names_and_the_same_values(tmp_path: Path) -> None:
    """Files differ by their weights, or by another constant, such as the mean of the contract."""
    network = served_network(MOTION, load_weights(MOTION, "pretrained").state)
    names, answers = [], []
    clip = random_clips(MOTION.geometry, batch=1, views=1, seed=3).numpy()
    for mean in (0.45, 0.5):
        network.mean = mean
        path = tmp_path / "model.onnx"
        FORMATS["onnx"].write(network, MOTION.geometry, path)
        plain = FORMATS["onnx"].load(path)(clip)[0]
        suffix = mark_tensors(path)
        names.append({name for node in onnx.load(path).graph.node for name in node.output})
        assert all(name.endswith(suffix) for name in names[-1] - {"SCORES", "FEATURES"})
        answers.append(FORMATS["onnx"].load(path)(clip)[0])
        np.testing.assert_array_equal(answers[-1], plain)
    assert names[0] & names[1] == {"SCORES", "FEATURES"}
    assert not np.array_equal(answers[0], answers[1])
