"""A ready ONNX or TorchScript file becomes a model, or a sentence says what to do."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn
from tritonclient.grpc import InferenceServerClient

from clipserve_export.clips import random_clips
from clipserve_export.formats import load_onnx, load_torchscript
from clipserve_export.own.adopted import hash_file
from clipserve_export.own.contract_file import read_contract_file
from clipserve_export.own.onnx_file import read_onnx
from clipserve_export.own.source import own_spec
from clipserve_export.repository import read_config
from tests.export.conftest import Run
from tests.export.small_onnx import (
    CONTRACT,
    DEVIATION,
    GEOMETRY,
    MEAN,
    WEIGHTS,
    adopt,
    contract_of,
    write_beside,
    write_onnx,
)
from tests.motion_repository import ANY_PORTS, KilledTriton, change_config, clip_input
from tests.watching import wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of a user."""
    write_beside(tmp_path, CONTRACT)
    return tmp_path


def expected_answers(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SCORES and FEATURES, written out apart from the code under test."""
    batch, views = clip.shape[:2]
    normalised = (clip.reshape(-1, *clip.shape[2:])[..., ::-1].astype(np.float32) / 255 - MEAN) / DEVIATION
    embedding = normalised.mean((2, 3)).reshape(batch * views, 12)
    logits = np.exp(embedding @ WEIGHTS)
    scores = logits / logits.sum(1, keepdims=True)
    return scores.reshape(batch, views, 3).mean(1), embedding.reshape(batch, views, 12).mean(1)


def test_an_onnx_file_is_extended_by_what_is_around_the_network(folder: Path, run: Run) -> None:
    status, said = adopt(run, folder, write_onnx(folder / "net.onnx"))
    assert status == 0, said
    net = folder / "repository" / "mine_net"
    assert (net / "labels.txt").read_text() == "one\ntwo\nthree\n"
    clip = random_clips(GEOMETRY, batch=3, views=2, seed=4).numpy()
    scores, features = load_onnx(net / "1" / "model.onnx")(clip)
    expected_scores, expected_features = expected_answers(clip)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    np.testing.assert_allclose(features, expected_features, atol=1e-4)
    config = read_config(folder / "repository", "mine_net")
    assert (config.backend, list(config.output[1].dims)) == ("onnxruntime", [12])


def test_branches_use_the_tensors_around_them(folder: Path, run: Run) -> None:
    status, said = adopt(run, folder, write_onnx(folder / "net.onnx", branches=True))
    assert status == 0, said
    clip = random_clips(GEOMETRY, batch=1, views=2, seed=4).numpy()
    scores, _ = load_onnx(folder / "repository" / "mine_net" / "1" / "model.onnx")(clip)
    np.testing.assert_allclose(scores, expected_answers(clip)[0], atol=1e-5)


def test_weights_that_lie_beside_a_file_are_part_of_its_hash(folder: Path, run: Run) -> None:
    """TensorRT's engines are told apart by it."""
    path = write_onnx(folder / "net.onnx", beside=True)
    status, said = adopt(run, folder, path)
    assert status == 0, said
    assert f"the repository is new: {folder / 'repository'}" in said
    assert "the repository is new" not in adopt(run, folder, path)[1]
    assert [file.name for file in (folder / "repository" / "mine_net" / "1").glob("*.onnx*")] == ["model.onnx"]
    before = hash_file(path)
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[0] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    assert hash_file(path) != before
    (folder / "weights.bin").unlink()
    assert "cannot be read as ONNX" in adopt(run, folder, path)[1]


def test_more_weights_than_a_file_holds_are_refused_before_they_are_read(folder: Path, run: Run) -> None:
    path = write_onnx(folder / "net.onnx", beside=True, branches=True)
    os.truncate(folder / "weights.bin", 2**31)
    said = adopt(run, folder, path)[1]
    assert "has 2.00 GiB with its weights, and the ONNX file of a model must have less than 2 GiB: store" in said


def test_too_little_memory_is_said(folder: Path, run: Run) -> None:
    said = adopt(run, folder, write_onnx(folder / "net.onnx", elements=2**45))[1]
    assert "net.onnx takes more memory than there is: give this machine, or its container, more memory" in said


def test_a_full_disk_is_said_and_changes_nothing(folder: Path, run: Run) -> None:
    path = write_onnx(folder / "net.onnx")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, said = adopt(run, folder, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 1
    assert "repository cannot be written: File too large" in said
    assert list((folder / "repository").iterdir()) == []


def test_a_command_that_is_told_to_stop_leaves_nothing_behind(folder: Path) -> None:
    files = ["--contract", folder / "mine.toml", "--labels", folder / "mine.txt", "--repository", folder / "repository"]
    path = write_onnx(folder / "net.onnx")
    process = subprocess.Popen([sys.executable, "-m", "clipserve", "adopt", path, "--name", "mine", *files])
    assert wait_for(lambda: list(folder.glob("repository/mine_net/.staging-*")) or process.poll() is not None)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list((folder / "repository").iterdir()) == []


def test_a_frozen_torchscript_file_is_adopted(folder: Path, run: Run) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 16 * 16, 3)).eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(module)), folder / "net.pt")
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    status, said = adopt(run, folder, folder / "net.pt")
    assert status == 0, said


class OfTwoClips(nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.flatten(1)[:, :3].reshape(2, 3)


def test_a_torchscript_file_that_fails_inside_says_why(folder: Path, run: Run) -> None:
    torch.jit.save(torch.jit.script(OfTwoClips()), folder / "net.pt")
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    said = adopt(run, folder, folder / "net.pt")[1]
    assert "takes 2 clips at once and not 1: RuntimeError: shape '[2, 3]' is invalid for input of size 3." in said


class Numbered(nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        logits = frames.flatten(1)[:, :3]
        if len(logits) > 1:
            logits = logits + torch.zeros(len(logits), 1)
        return logits + torch.arange(logits.shape[1])


def test_a_script_that_names_no_device_makes_its_tensors_where_its_clips_are(folder: Path, run: Run) -> None:
    torch.jit.save(torch.jit.script(Numbered()), folder / "net.pt")
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    status, said = adopt(run, folder, folder / "net.pt", "--target", "gpu")
    assert status == 0, said
    graph = torch.jit.load(folder / "repository" / "mine_net" / "1" / "model.pt").graph
    for kind in ("aten::zeros", "aten::arange"):
        (node,) = graph.findAllNodes(kind)
        assert "prim::device" in [value.node().kind() for value in node.inputs()]


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_files_of_other_opsets_and_types_are_adopted(folder: Path, opset: int, kind: int) -> None:
    (folder / "mine.toml").write_text(contract_of(kind))
    contract, interface = read_contract_file(folder / "mine.toml")
    path = write_onnx(folder / "net.onnx", opset=opset, kind=kind)
    network = read_onnx(path, own_spec("mine", contract), interface)
    network.write(folder / "model.onnx")
    clip = random_clips(GEOMETRY, batch=2, views=3, seed=4)
    got = load_onnx(folder / "model.onnx")(clip.numpy())
    for values, wanted in zip(got, network(clip), strict=True):
        np.testing.assert_allclose(values, wanted.numpy(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_torchscript_file_is_adopted(folder: Path, run: Run, target: str) -> None:
    module = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 16 * 16, 3)))
    module.save(str(folder / "net.pt"))
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    status, said = adopt(run, folder, folder / "net.pt", "--target", target)
    assert status == 0, said
    clip = random_clips(GEOMETRY, batch=2, views=1, seed=4)
    answers = load_torchscript(folder / "repository" / "mine_net" / "1" / "model.pt")(clip.numpy())
    frames = (clip[:, 0].flip(-1) / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    with torch.no_grad():
        expected = module(frames.permute(0, 1, 4, 2, 3).contiguous()).softmax(-1)
    np.testing.assert_allclose(answers[0], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("written", "contract", "said"),
    [
        ({"batch": 1}, CONTRACT, "it takes exactly 1 clips, but a server"),
        ({"rows": 1}, CONTRACT, "does not take 2 clips at once"),
        ({"rows": 2}, CONTRACT, "takes 2 clips at once and not 1"),
        ({}, CONTRACT + 'head = "fc"\n', "head is 'fc', and an ONNX file has no modules"),
        ({"softmax": True}, CONTRACT, 'write answers = "probabilities"'),
        ({"opset": 12}, CONTRACT, "has opset 12, but must have 13 to 21"),
        ({"kind": TensorProto.FLOAT16}, CONTRACT, "is tensor(float16), but the contract says float32"),
        ({}, CONTRACT.replace("frames = 4", "frames = 8"), "correct frames, crop, or layout"),
        ({}, CONTRACT.replace("BTCHW", "BCTHW"), "float32 [batch, 3, 4, 16, 16]: correct frames, crop, or layout"),
        ({}, CONTRACT.replace('scores = "logits"', ""), "has 2 of them, embedding, logits: name one by scores = "),
        ({}, CONTRACT.replace('"logits"', '"classes"'), "has no scores 'classes'; it has embedding, logits"),
        ({}, CONTRACT.replace('"embedding"', '"pool"'), "has no features 'pool'"),
        (
            {"classifier": True},
            CONTRACT.replace('"logits"', '"label"'),
            "'label' is tensor(string), but scores",
        ),
        ({}, CONTRACT.replace("[network]", "classes = 4\n[network]"), "classes = 4, but the network returns 3 values"),
        ({}, CONTRACT + 'type = "uint8"\n', "leave mean and deviation out"),
    ],
)
def test_a_file_that_a_server_cannot_batch_or_its_contract_contradicts_is_refused(
    folder: Path, run: Run, written: dict[str, object], contract: str, said: str
) -> None:
    (folder / "mine.toml").write_text(contract)
    status, output = adopt(run, folder, write_onnx(folder / "net.onnx", **written))  # type: ignore[arg-type]
    assert status == 1
    assert said in output
    assert not list((folder / "repository").rglob("model.onnx"))


def test_a_damaged_file_is_told_in_one_sentence(folder: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither a traceback, nor what ONNX Runtime prints beside its errors."""
    whole = write_onnx(folder / "net.onnx").read_bytes()
    damages = {
        whole[:300]: "cannot be read as ONNX",
        whole.replace(b"frames", b"fr\xffmes", 1): "cannot be read as ONNX: 'utf-8' codec",
        whole.replace(b"weights", b"height_"[:7], 1): "cannot be read as ONNX: Invalid model. Node input 'height_' is",
        whole.replace(np.int64([0, 12, 16, 16]).tobytes(), np.int64([0, 12, 16, 24]).tobytes()): "The input tensor",
        b"": "cannot be read as ONNX: it is empty. Copy or download it again",
        b"version https://git-lfs": "a pointer of Git LFS (git lfs pull fetches the file)",
    }
    for damaged, wanted in damages.items():
        (folder / "net.onnx").write_bytes(damaged)
        status, said = adopt(run, folder, folder / "net.onnx")
        assert (status, wanted in said) == (1, True), said
        assert "onnxruntime" not in said.lower().replace("onnx runtime", "")
    assert capfd.readouterr().err == ""
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    module = nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 16 * 16, 3)).eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, 4, 3, 16, 16)), folder / "net.pt")
    archive = (folder / "net.pt").read_bytes()
    weights = next(iter(module.parameters())).detach().numpy().tobytes()
    for damaged in (archive[:9000], archive.replace(weights[:64], bytes(64), 1)):
        (folder / "net.pt").write_bytes(damaged)
        assert "net.pt is damaged or cut off: copy or download it again" in adopt(run, folder, folder / "net.pt")[1]
    assert not list((folder / "repository").rglob("model.*"))


def test_another_file_is_told_what_is_wanted(folder: Path, run: Run) -> None:
    (folder / "net.onnx").write_bytes(b"no network")
    assert "cannot be read as ONNX" in adopt(run, folder, folder / "net.onnx")[1]
    (folder / "mine.toml").write_text(CONTRACT.partition("scores")[0])
    torch.save({"weight": torch.ones(3)}, folder / "net.pt")
    said = adopt(run, folder, folder / "net.pt")[1]
    assert "is a zip archive without a TorchScript program" in said
    assert "A file of weights alone has no network" in said
    assert "there is no file" in adopt(run, folder, folder / "absent.onnx")[1]
    assert "the name must end in .onnx" in adopt(run, folder, folder / "mine.txt")[1]


def test_the_files_own_nodes_stay_as_they_are(folder: Path) -> None:
    contract, interface = read_contract_file(folder / "mine.toml")
    path = write_onnx(folder / "net.onnx")
    read_onnx(path, own_spec("mine", contract), interface).write(folder / "model.onnx")
    before, after = onnx.load(path), onnx.load(folder / "model.onnx")
    assert [node.op_type for node in before.graph.node] == [
        node.op_type for node in after.graph.node if node.output[0].startswith("adopted/") and node.name != "input"
    ][-len(before.graph.node) :]
    assert onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()[0].type == "tensor(uint8)"


@pytest.mark.long
def test_an_operator_that_openvino_lacks_is_served_by_onnx_runtime(folder: Path, run: Run) -> None:
    """The export finds that out. A server that is told to use OpenVINO all the same falls back."""
    status, said = adopt(run, folder, write_onnx(folder / "net.onnx", regressor=True), "--target", "cpu")
    assert status == 0, said
    assert "OpenVINO does not run version 1, because it lacks an operator or gives other answers" in said
    config = read_config(folder / "repository", "mine_net")
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator
    change_config(
        folder / "repository",
        "mine_net",
        lambda config: config.optimization.execution_accelerators.cpu_execution_accelerator.add(name="openvino"),
    )
    clip = random_clips(GEOMETRY, batch=2, views=2, seed=4).numpy()
    log = folder / "triton.log"
    with KilledTriton(folder / "repository", log=log, **ANY_PORTS) as server:
        client = InferenceServerClient(server.grpc_url)
        scores = client.infer("mine_net", [clip_input(clip)]).as_numpy("SCORES")
        client.close()
    assert "mine_net/1/model.onnx runs in ONNX Runtime: OpenVINO does not compile it" in log.read_text()
    np.testing.assert_allclose(scores, expected_answers(clip)[0], atol=1e-5)
