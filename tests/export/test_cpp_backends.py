"""Triton's C++ backends answer as their substitutes do, whatever kind of model it is.

They need to be in .cache/backends (tests/exports.py).
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

import clipserve_server.triton
from clipserve import Prediction, VideoClassifier, Window
from clipserve_export.formats import FormatName
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton
from clipserve_server.wheel import SUBSTITUTES, TritonWheel, make_backend_directory
from tests.export.conftest import Run
from tests.export.small_checkpoint import BUILDERS, save_checkpoint
from tests.export.small_heads import make_head, publish
from tests.export.small_network import publish_network
from tests.export.small_onnx import CONTRACT, adopt, contract_of, write_beside, write_onnx
from tests.exports import CPP_BACKENDS, FOLDER, Export, copy_model, make_exports
from tests.motion_repository import ANY_PORTS

Answers = dict[str, list[Prediction | Window]]
PUBLISHED = [name for name in SPECS if name != "motion"]
pytestmark = [pytest.mark.long, pytest.mark.needs("cpp_backends")]


def make_cpp_backend_directory(folder: Path, wheel: TritonWheel) -> Path:
    """As for the substitutes, with the C++ backends in their place."""
    make_backend_directory(folder, wheel)
    for name in SUBSTITUTES:
        shutil.rmtree(folder / name)
        shutil.copytree(CPP_BACKENDS / name, folder / name)
    return folder


@pytest.fixture(params=["onnx", "torchscript"])
def format_name(request: pytest.FixtureRequest) -> FormatName:
    chosen: FormatName = request.param
    return chosen


@pytest.fixture
def repository(format_name: FormatName, repositories: Callable[[FormatName], Path], tmp_path: Path, run: Run) -> Path:
    """`motion`, a head on it, an own network, adopted files, and checkpoints of Hugging Face."""
    folder = copy_model(repositories(format_name), tmp_path / "repository", timeline=True)
    publish(folder, make_head(), name="fitted")
    publish_network(folder, tmp_path, "own", "build", format_name)
    for path, contract in write_files(format_name, tmp_path).items():
        write_beside(tmp_path, contract)
        status, said = adopt(run, tmp_path, path, name=path.stem)
        assert status == 0, said
    for kind in BUILDERS:
        save_checkpoint(kind, tmp_path / kind)
        arguments = ["--name", kind, "--format", format_name, "--repository", folder]
        status, said = run("export", f"hf:{tmp_path / kind}", *arguments)
        assert status == 0, said
    return folder


def write_files(format_name: FormatName, folder: Path) -> dict[Path, str]:
    """Files to adopt, each with its contract."""
    if format_name == "torchscript":
        path = folder / "scripted.pt"
        torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4 * 3 * 16 * 16, 3))).save(str(path))
        return {path: CONTRACT.partition("scores")[0]}
    files = {
        write_onnx(folder / f"{name}.onnx", kind=kind): contract_of(kind)
        for name, kind in (("full", TensorProto.FLOAT), ("half", TensorProto.FLOAT16), ("bytes", TensorProto.UINT8))
    }
    files[write_onnx(folder / "branches.onnx", branches=True)] = CONTRACT
    files[write_onnx(folder / "regressor.onnx", regressor=True)] = CONTRACT
    return files


@pytest.fixture
def compare(real_videos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    """Serve a repository with the substitutes and with the C++ backends: the answers are the same."""

    def compare(repository: Path) -> None:
        expected = answer(repository, real_videos[:2], tmp_path / "substitutes.log")
        monkeypatch.setattr(clipserve_server.triton, "make_backend_directory", make_cpp_backend_directory)
        found = answer(repository, real_videos[:2], tmp_path / "cpp.log")
        loaded = re.findall(r"OpenLibraryHandle: .*/libtriton_(\w+)\.so", (tmp_path / "cpp.log").read_text())
        assert set(loaded) in ({"python", name} for name in SUBSTITUTES), "Triton loaded no C++ backend"
        require_same(found, expected)

    return compare


def test_networks_of_ones_own(repository: Path, compare: Callable[[Path], None]) -> None:
    compare(repository)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(
    name: str, format_name: FormatName, compare: Callable[[Path], None], tmp_path: Path
) -> None:
    make_exports([Export(format_name, name)])
    compare(copy_model(FOLDER / format_name, tmp_path / "repository", model=name))


def require_same(found: Answers, expected: Answers) -> None:
    assert found.keys() == expected.keys()
    for model, predictions in expected.items():
        for one, other in zip(predictions, found[model], strict=True):
            np.testing.assert_allclose(scores_of(other), scores_of(one), atol=1e-5, err_msg=model)
            if isinstance(one, Prediction) and one.features is not None:
                assert isinstance(other, Prediction)
                assert other.features is not None
                np.testing.assert_allclose(other.features, one.features, rtol=1e-4, atol=1e-4, err_msg=model)


def answer(repository: Path, videos: list[Path], log: Path) -> Answers:
    """What each model says about the videos: several at a time, and in two views; and `motion` about windows."""
    answers: Answers = {}
    with Triton(repository, log=log, options=["--log-verbose=1"], **ANY_PORTS) as triton:
        for model in triton.models:
            with VideoClassifier(model.name, triton.grpc_url) as classifier:
                features = classifier.contract().feature_size is not None
                rows = list(classifier.classify_many(videos * 4, features=features))
                answers[model.name] = [
                    *(row.prediction for row in rows if row.prediction is not None),
                    *(classifier.classify(video, features=features, sampling="clip", views=2) for video in videos),
                ]
                assert len(answers[model.name]) == 5 * len(videos), "some rows failed"
                if model.name == "motion":
                    windows = classifier.timeline(videos[0], window=1, step=0.5)
                    answers["windows"] = list(windows)
    return answers


def scores_of(prediction: Prediction | Window) -> NDArray[np.float64]:
    """By class."""
    return np.array([scored.score for scored in sorted(prediction.labels, key=lambda scored: scored.index)])
