"""The libraries that serve and export send no telemetry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = ("onnxruntime", "openvino")
OURS = (
    "clipserve_export.formats",
    "clipserve_server.backends.openvino_runtime",
    "clipserve_server.backends.onnxruntime_gpu",
)


def list_left_by(module: str, home: Path) -> list[str]:
    """The files that importing it leaves at home: what libraries note of their users before they report them."""
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    run = [sys.executable, "-c", f"import {module}"]
    subprocess.run(run, env={**environment, "HOME": str(home), "TMPDIR": str(home)}, check=True)
    return [path.name for path in home.rglob("*")]


@pytest.mark.parametrize("module", LIBRARIES)
def test_the_libraries_would_report(module: str, tmp_path: Path) -> None:
    assert list_left_by(module, tmp_path), "this test sees no telemetry any more: look for another sign of it"


@pytest.mark.parametrize("module", OURS)
def test_our_packages_prevent_it(module: str, tmp_path: Path) -> None:
    assert list_left_by(module, tmp_path) == []
