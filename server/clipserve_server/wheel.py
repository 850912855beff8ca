"""The Triton that the wheel `nvidia-pytriton` carries: a genuine tritonserver with its Python backend."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from clipserve_server.errors import ServerStartError


@dataclass(frozen=True)
class TritonWheel:
    """Where the wheel's parts lie."""

    root: Path  # site-packages/pytriton/tritonserver

    @property
    def binary(self) -> Path:
        """tritonserver."""
        return self.root / "bin" / "tritonserver"

    @property
    def libraries(self) -> Path:
        """The shared libraries the binary was built with."""
        return self.root.parents[1] / "nvidia_pytriton.libs"

    @property
    def python_backend(self) -> tuple[Path, ...]:
        """The files of the Python backend, the stub for this very Python among them."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        backend = self.root / "backends" / "python"
        stub = self.root / "python_backend_stubs" / python / "triton_python_backend_stub"
        return backend / "libtriton_python.so", backend / "triton_python_backend_utils.py", stub


def find_wheel() -> TritonWheel:
    """The installed wheel; raises ServerStartError where there is none for this machine or this Python."""
    # Found without importing it: pytriton takes a second to import, and nothing of its Python is needed.
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
