"""The wheel in fresh environments: each Python that the client supports, with the oldest and the newest numpy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipserve_export.motion.videos import write_motion_video
from tests.packaging.conftest import Distributions

CALL = """
import sys
import clipserve, numpy
assert numpy.__version__.startswith(sys.argv[3]), numpy.__version__
with clipserve.VideoClassifier("motion", sys.argv[1]) as classifier:
    print(classifier.classify(sys.argv[2]).top.label)
"""
# Python, numpy, extra. numpy 1.26 has no wheel for Python 3.13.
MATRIX = [
    ("3.11", "1.26", ""),
    ("3.11", "2", "[cli]"),
    ("3.12", "1.26", ""),
    ("3.12", "2", "[cli]"),
    ("3.13", "2", "[cli]"),
]
NUMPY = {"1.26": "numpy==1.26.*", "2": "numpy>=2"}


def find_python(version: str) -> str | None:
    """A Python of this minor version: this one, one on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = [sys.executable, shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for python in filter(None, found):
        say = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(say, capture_output=True, text=True)
        if done.stdout.strip() == version:
            return str(python)
    return None


def install(python: Path, *what: str) -> None:
    """By this environment's pip, into another one."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "-q"]
    done = subprocess.run([*pip, "--only-binary", ":all:", *what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("version", "numpy", "extra"), MATRIX)
def test_the_client_works_in_a_fresh_environment(
    distributions: Distributions, motion_url: str, tmp_path: Path, version: str, numpy: str, extra: str
) -> None:
    if (interpreter := find_python(version)) is None:
        pytest.skip(f"this machine has no Python {version}")
    video = tmp_path / "video.mp4"
    write_motion_video(video, "bouncing", 1)
    subprocess.run([interpreter, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    bin = tmp_path / "env" / "bin"
    install(bin / "python", f"{distributions.wheel}{extra}", NUMPY[numpy])
    assert run(bin / "python", "-c", CALL, motion_url, video, f"{numpy}.") == "bouncing\n"
    if extra == "[cli]":
        assert run(bin / "clipserve", "--version") == distributions.wheel.name.split("-")[1] + "\n"
        assert "bouncing" in run(bin / "clipserve", "classify", video, "--model", "motion", "--url", motion_url)


def run(*command: object) -> str:
    """What a command prints; without what leads a Python to the packages of the repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
