"""The scripts for a GPU machine without a network: archives that come one by one, steps, and what they leave."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from tests.exports import ROOT
from tests.interrupts import interruptible
from tests.watching import wait_for

SCRIPTS = ROOT / "benchmarks/gpu_machine"
# What the code of the repository is, and no more.
NOT_CODE = shutil.ignore_patterns(".*", "__pycache__", "site", "dist")


def pack(target: Path, source: Path) -> None:
    with tarfile.open(target, "w:xz", preset=0) as archive:
        archive.add(source, arcname=".")


def start(folder: Path, *steps: str, **variables: str) -> subprocess.Popen[str]:
    """run.sh with the Python of the tests, without a GPU."""
    environment = {**os.environ, "WORK": "work", "PYTHON": sys.executable, "QUICK": "1", **variables}
    return subprocess.Popen(
        interruptible(["bash", "run.sh", *steps]),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *steps: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    with start(folder, *steps, **variables) as script:
        output, _ = script.communicate(timeout=300)
    return subprocess.CompletedProcess(script.args, script.returncode, output)


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


@pytest.fixture
def slow_steps(folder: Path) -> Path:
    """run.sh, and code in which a step takes a minute; when it is interrupted, it writes its results."""
    program = (
        "from pathlib import Path\nfrom time import sleep\n"
        "try:\n    print('begun')\n    sleep(60)\n"
        "except KeyboardInterrupt:\n    Path('benchmarks/results/gpu_service.md').write_text('so far')\n"
    )
    results = folder / "code/benchmarks/results"
    results.mkdir(parents=True)
    for name in ("gpu_service", "gpu"):
        (results.parent / f"{name}.py").write_text(program)
    (folder / "code/client").mkdir()
    (folder / "code/client/torch.py").touch()
    for name in ("triton", "packages"):
        (folder / name).mkdir()
    for name in ("triton", "packages", "code"):
        pack(folder / f"{name}.tar.xz", folder / name)
    return folder


def packed(archive: Path) -> set[str]:
    with tarfile.open(archive) as results:
        return set(results.getnames())


def test_when_the_time_for_all_steps_is_over_the_results_so_far_are_kept(slow_steps: Path) -> None:
    done = run(slow_steps, "service", "networks", SECONDS_IN_ALL="5", RESULTS="kept.tar.gz")
    assert "== service: exit 124" in done.stdout
    assert "== networks: left out" in done.stdout
    assert "results/gpu_service.md" in packed(slow_steps / "kept.tar.gz")


def test_an_interrupt_ends_the_step_and_keeps_its_results(slow_steps: Path) -> None:
    with start(slow_steps, "service=1", "networks") as script:
        log = slow_steps / "work/results/service.log"
        assert wait_for(lambda: log.exists() and "begun" in log.read_text())
        os.killpg(script.pid, signal.SIGINT)
        assert script.wait(10) == 130
    assert "results/gpu_service.md" in packed(slow_steps / "work/results.tar.gz")
    assert not (slow_steps / "work/results/networks.log").exists()


def test_a_step_that_there_is_not_is_refused_before_another_one_runs(folder: Path) -> None:
    for wrong in ("tets", "tests=3", "service=soon"):
        done = run(folder, "tests", wrong)
        assert done.returncode == 2
        assert wrong in done.stdout
    assert not (folder / "work").exists()


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_steps_run_the_code_that_was_packed_and_leave_one_archive(folder: Path) -> None:
    (folder / "empty").mkdir()
    for name in ("triton", "packages"):  # They come from the environment of the tests.
        pack(folder / f"{name}.tar.xz", folder / "empty")
    shutil.copytree(ROOT, folder / "code", ignore=NOT_CODE)
    pack(folder / "code.tar.xz", folder / "code")
    done = run(folder, "networks=0.2", "tests")
    assert "== networks: exit 0" in done.stdout
    assert "== tests: exit 0" in done.stdout, done.stdout
    assert re.search(r"\d+ skipped", done.stdout), "the tests that need a GPU were chosen, and others were not"
    logs = {f"results/{name}.log" for name in ("machine", "networks", "tests")}
    assert logs <= packed(folder / "work/results.tar.gz")


def test_the_packages_are_those_of_the_project() -> None:
    """Versions that stand in pack.sh are those of the extras."""
    pinned = dict(re.findall(r"([\w.-]+)==([\w.]+)", (SCRIPTS / "pack.sh").read_text()))
    project = dict(re.findall(r'"([\w.-]+)==([\w.]+)"', (ROOT / "pyproject.toml").read_text()))
    shared = pinned.keys() & project.keys()
    assert {"av", "nvidia-pytriton", "PyNvVideoCodec", "pytorchvideo"} <= shared
    assert {name: pinned[name] for name in shared} == {name: project[name] for name in shared}
