"""The Triton in the wheel `nvidia-pytriton`: a genuine tritonserver, and a backend directory for it.

The wheel has the Python backend only. Triton loads a model whose config says `backend: "onnxruntime"` with the Python
file `onnxruntime/model.py` of the backend directory, if there is one. So the configs that name the C++ backends of
Triton's container are served here unchanged, by Python backends that substitute them.
"""

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from clipserve_server.errors import ServerStartError

# Triton's name of a backend -> the module whose TritonPythonModel substitutes it.
SUBSTITUTES = {
    "onnxruntime": "clipserve_server.backends.onnxruntime_backend",
    "pytorch": "clipserve_server.backends.libtorch_backend",
}


@dataclass(frozen=True)
class TritonWheel:
    """Where the wheel's parts are."""

    root: Path  # site-packages/pytriton/tritonserver

    @property
    def binary(self) -> Path:
        """tritonserver."""
        return self.root / "bin" / "tritonserver"

    @property
    def libraries(self) -> Path:
        """The shared libraries that the binary was built with."""
        return self.root.parents[1] / "nvidia_pytriton.libs"

    @property
    def python_backend(self) -> tuple[Path, ...]:
        """The files of the Python backend, among them the stub for this version of Python."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        backend = self.root / "backends" / "python"
        stub = self.root / "python_backend_stubs" / python / "triton_python_backend_stub"
        return backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub


def find_wheel() -> TritonWheel:
    """The installed wheel. Raises ServerStartError where there is none for this machine or this Python."""
    # Without importing it: that takes a second, and nothing of its Python is needed.
    found = importlib.util.find_spec("pytriton")
    if found is None or not found.submodule_search_locations:
        raise ServerStartError("no Triton is installed: pip install 'clipserve[server]' brings one")
    wheel = TritonWheel(Path(found.submodule_search_locations[0]) / "tritonserver")
    for path in (wheel.binary, *wheel.python_backend):
        if not path.exists():
            raise ServerStartError(
                f"the installed nvidia-pytriton has no {path.relative_to(wheel.root)} for this Python"
            )
    return wheel


def make_backend_directory(folder: Path, wheel: TritonWheel) -> Path:
    """Fill `folder` with the Python backend and the substitutes. Copies them: Triton refuses links that leave it."""
    python = folder / "python"
    python.mkdir(parents=True)
    for path in wheel.python_backend:
        shutil.copy2(path, python)
    for name, module in SUBSTITUTES.items():
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(f"from {module} import TritonPythonModel as TritonPythonModel\n")
    return folder
