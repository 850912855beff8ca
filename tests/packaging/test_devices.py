"""The environment for a CPU and the one for a GPU: which of them `make` makes, and what is in them."""

import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from clipserve_server.gpu import find_conflict
from tests.packaging.conftest import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CPU, GPU = "onnxruntime", "onnxruntime-gpu"


def needs(*extras: str) -> Iterator[str]:
    """The names of all packages that these extras bring by themselves."""
    for extra in extras:
        for requirement in map(Requirement, EXTRAS[extra]):
            yield from needs(*requirement.extras) if requirement.name == "clipserve" else [requirement.name]


def make(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What make would run; nothing is run."""
    environment = {name: value for name, value in os.environ.items() if name != "DEVICE"}
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)


def driver(folder: Path, prints: str, status: int = 0) -> Path:
    """A folder with an nvidia-smi."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{prints}'\nexit {status}\n")
    command.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("prints", "status", "extras"),
    [
        ("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)", 0, "demo-core,gpu"),
        ("NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", 9, "demo"),
        ("No devices were found", 6, "demo"),
    ],
)
def test_a_machine_whose_driver_names_a_gpu_gets_the_environment_for_one(
    tmp_path: Path, prints: str, status: int, extras: str
) -> None:
    done = make("demo", f"VENV={tmp_path / 'env'}", path=driver(tmp_path, prints, status))
    assert f"-e '.[{extras}]'" in done.stdout
    assert ("-m clipserve_server.gpu" in done.stdout) == ("gpu" in extras)


def test_a_variable_chooses_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    path = driver(tmp_path, "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)")
    env = f"VENV={tmp_path / 'env'}"
    assert "-e '.[test]'" in make("env", "DEVICE=cpu", env, path=path).stdout
    assert "-e '.[test-core,gpu]'" in make("env", "DEVICE=gpu", env).stdout
    refused = make("env", "DEVICE=tpu", env)
    assert refused.returncode
    assert "DEVICE is 'tpu', but must be cpu or gpu" in refused.stderr


READY = {"cpu": (".ready-demo", ".ready"), "gpu": (".ready-demo-gpu", ".ready-gpu")}


@pytest.mark.parametrize("target", ["env", "demo"])
@pytest.mark.parametrize("there", [slice(0, 1), slice(1, 2), slice(0, 2)], ids=["of the demo", "of the tests", "both"])
@pytest.mark.parametrize(("device", "other"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_an_environment_for_the_other_device_loses_what_cannot_stay(
    tmp_path: Path, device: str, other: str, there: slice, target: str
) -> None:
    for ready in READY[other][there]:
        (tmp_path / ready).touch()
    printed = make(target, f"DEVICE={device}", f"VENV={tmp_path}").stdout
    assert f"is for a {other}: changing it for a {device}" in printed
    assert f"uninstall -q -y torch {CPU} {GPU}" in printed
    assert f"rm -f {' '.join(str(tmp_path / ready) for ready in READY[other][there])}\n" in printed


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_environment_for_the_same_device_loses_nothing(tmp_path: Path, device: str) -> None:
    old = int((ROOT / "pyproject.toml").stat().st_mtime) - 10
    for ready in READY[device]:
        (tmp_path / ready).touch()
        os.utime(tmp_path / ready, (old, old))
    printed = make("env", f"DEVICE={device}", f"VENV={tmp_path}").stdout
    assert "pip install" in printed.replace(" --disable-pip-version-check", "")
    assert "uninstall" not in printed


@pytest.mark.parametrize("extra", ["export", "server", "demo", "test", "bench"])
def test_the_extras_for_cpus_bring_one_onnxruntime(extra: str) -> None:
    assert {CPU, GPU, "PyNvVideoCodec"} & {*needs(extra)} == {CPU}


@pytest.mark.parametrize("extras", [("gpu",), ("test-core", "gpu")])
def test_the_extra_for_gpus_brings_the_other_one_and_nvdec(extras: tuple[str, ...]) -> None:
    assert {CPU, GPU, "PyNvVideoCodec", "torch", "nvidia-pytriton"} & {*needs(*extras)} == {
        *(GPU, "PyNvVideoCodec", "torch", "nvidia-pytriton")
    }


def test_the_environment_of_tests_is_the_same_for_both_but_for_that() -> None:
    assert {*needs("test")} - {CPU} == {*needs("test-core", "gpu")} - {GPU, "PyNvVideoCodec"}


def test_both_onnxruntimes_at_once_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (CPU, GPU):
        folder = tmp_path / f"{name.replace('-', '_')}-1.32.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.32.0\n")
    problem = find_conflict()
    assert problem is not None
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem
