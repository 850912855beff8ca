"""OpenVINO runs a model if it runs every version that a server loads."""

from pathlib import Path

import numpy as np
import pytest

from clipserve.fitting import Head
from clipserve_export.own.contract_file import read_contract_file
from clipserve_export.own.fitted import find_trunk, publish_head
from clipserve_export.own.onnx_file import read_onnx
from clipserve_export.own.source import own_spec
from clipserve_export.parity import runs_in_openvino
from clipserve_export.repository import read_config
from tests.export.conftest import Run
from tests.export.small_onnx import CONTRACT, adopt, write_beside, write_onnx

SAID = "OpenVINO does not run version {}, because it lacks an operator or gives other answers"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def publish(run: Run, repository: Path, number: int, *, lacking: bool) -> str:
    """Adopt a file as this version; OpenVINO lacks an operator of it, or has all. Returns what was said."""
    folder = repository.parent
    write_beside(folder, CONTRACT)
    path = write_onnx(folder / "net.onnx", regressor=lacking)
    status, said = adopt(run, folder, path, "--version", number, "--target", "cpu")
    assert status == 0, said
    return said


def uses_openvino(repository: Path, name: str = "mine") -> bool:
    accelerators = read_config(repository, f"{name}_net").optimization.execution_accelerators
    return bool(accelerators.cpu_execution_accelerator)


def test_the_config_follows_the_versions_that_are_loaded(repository: Path, run: Run) -> None:
    assert "OpenVINO" not in publish(run, repository, 1, lacking=False)
    assert uses_openvino(repository)
    assert SAID.format(2) in publish(run, repository, 2, lacking=True)
    assert not uses_openvino(repository)
    for serve, follows in (("1", True), ("all", False), ("latest:1", False)):
        assert run("versions", "mine", "--serve", serve, "--repository", repository)[0] == 0
        assert uses_openvino(repository) == follows
    for option in ("--reset", "--cpu-accelerator=openvino"):
        status, said = run("export", "mine", "--configs", option, "--repository", repository)
        assert (status, SAID.format(2) in said, uses_openvino(repository)) == (0, True, False)
    assert run("export", "--check", "--repository", repository)[0] == 0
    publish(run, repository, 2, lacking=False)
    assert uses_openvino(repository), "only the version that is gone lacked it"


def test_a_choice_against_openvino_outlives_the_version_that_lacks_it(repository: Path, run: Run) -> None:
    publish(run, repository, 1, lacking=True)
    configs = ("export", "mine", "--configs", "--repository", repository)
    assert run(*configs, "--cpu-accelerator=none")[0] == 0
    publish(run, repository, 1, lacking=False)
    assert not uses_openvino(repository)
    assert run(*configs, "--reset")[0] == 0
    assert uses_openvino(repository)


def test_a_head_leaves_the_lacking_operator_out(repository: Path, run: Run) -> None:
    """It takes the features alone, and its own versions are its own."""
    publish(run, repository, 1, lacking=True)
    head = Head(("a", "b"), np.ones((2, 12), np.float32), np.zeros(2, np.float32))
    record = publish_head(find_trunk(repository, "mine", name="fitted"), head, "fitted")
    assert record.openvino is True
    assert (uses_openvino(repository), uses_openvino(repository, "fitted")) == (False, True)


def test_a_file_whose_answers_differ_in_openvino_is_not_run_there(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CONTRACT)
    contract, interface = read_contract_file(tmp_path / "mine.toml")
    spec = own_spec("mine", contract)
    networks = [
        read_onnx(write_onnx(tmp_path / f"{seed}.onnx", weights_seed=seed), spec, interface) for seed in range(2)
    ]
    networks[0].write(tmp_path / "model.onnx")
    assert [runs_in_openvino(network, tmp_path / "model.onnx", spec.geometry) for network in networks] == [True, False]
