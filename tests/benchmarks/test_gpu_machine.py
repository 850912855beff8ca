"""The scripts for a GPU machine without a network: archives that come one by one, steps, and what they leave."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from tests.exports import ROOT

SCRIPTS = ROOT / "benchmarks/gpu_machine"
# What the code of the repository is, and no more.
NOT_CODE = shutil.ignore_patterns(".*", "__pycache__", "site", "dist")


def pack(target: Path, source: Path) -> None:
    with tarfile.open(target, "w:xz", preset=0) as archive:
        archive.add(source, arcname=".")


def run(folder: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    """run.sh with the Python of the tests, without a GPU."""
    environment = {**os.environ, "WORK": str(folder / "work"), "PYTHON": sys.executable, "QUICK": "1", "MINUTES": "0.2"}
    command = ["bash", str(folder / "run.sh"), *steps]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """run.sh, and no archive."""
    shutil.copy(SCRIPTS / "run.sh", tmp_path)
    return tmp_path


def test_archives_may_come_one_by_one(folder: Path) -> None:
    (folder / "empty").mkdir()
    pack(folder / "triton.tar.xz", folder / "empty")
    assert run(folder).returncode == 0
    (folder / "triton.tar.xz").unlink()
    done = run(folder, "tests")
    assert done.returncode == 1
    assert "packages.tar.xz has not been unpacked yet" in done.stdout


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_steps_run_the_code_that_was_packed_and_leave_one_archive(folder: Path) -> None:
    (folder / "empty").mkdir()
    for name in ("triton", "packages"):  # They come from the environment of the tests.
        pack(folder / f"{name}.tar.xz", folder / "empty")
    shutil.copytree(ROOT, folder / "code", ignore=NOT_CODE)
    pack(folder / "code.tar.xz", folder / "code")
    done = run(folder, "networks", "tests")
    assert "== networks: exit 0" in done.stdout
    assert "== tests: exit 0" in done.stdout, done.stdout
    assert re.search(r"\d+ skipped", done.stdout), "the tests that need a GPU were chosen, and others were not"
    with tarfile.open(folder / "work/results.tar.gz") as archive:
        assert {"results/machine.log", "results/networks.log", "results/tests.log"} <= set(archive.getnames())
    assert run(folder, "tets").returncode == 2


def test_the_packages_are_those_of_the_project() -> None:
    """Versions that stand in pack.sh are those of the extras."""
    pinned = dict(re.findall(r"([\w.-]+)==([\w.]+)", (SCRIPTS / "pack.sh").read_text()))
    project = dict(re.findall(r'"([\w.-]+)==([\w.]+)"', (ROOT / "pyproject.toml").read_text()))
    shared = pinned.keys() & project.keys()
    assert {"av", "nvidia-pytriton", "PyNvVideoCodec", "pytorchvideo"} <= shared
    assert {name: pinned[name] for name in shared} == {name: project[name] for name in shared}
