"""The start of the container: its entry point, and what it says."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_start(module, tmp_path, **variables):
    """The entry point as the container runs it, with a tritonserver that tells that it was started."""
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho started "$@" > {tmp_path}/started\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "deploy" / "server"), str(ROOT / "server")]),
        "CLIPSERVE_STATE": str(tmp_path / "state"),
        "CLIPSERVE_SECRETS": str(tmp_path / "secrets"),
        **{f"CLIPSERVE_{name}": str(value) for name, value in variables.items()},
    }
    command = [sys.executable, "-m", f"clipserve_container.{module}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def only(problems):
    """The one problem there is."""
    (problem,) = problems
    return problem
