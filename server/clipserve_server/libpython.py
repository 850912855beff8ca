"""The shared library of this Python, which the stub of Triton's Python backend is linked with.

    PYTHONPATH=server python3 -m clipserve_server.libpython

ends with status 1 and the remedy where there is none. It runs before anything is installed, so it needs Python's own
library only.
"""

import ctypes
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from clipserve_server.errors import ServerStartError

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NAME = f"libpython{_VERSION}.so.1.0"


def find_libpython(name: str = NAME) -> Path | None:
    """Where the library lies; None where only the loader knows. Raises ServerStartError where there is none."""
    folders = [folder for folder in dict.fromkeys(_folders()) if folder.is_dir()]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    try:
        # A Python without a shared library of its own, beside one of the system's in a place of the system's choice.
        ctypes.CDLL(name)
    except OSError:
        raise ServerStartError(
            f"Triton's Python backend needs {name}, which is neither on the loader's path nor in"
            f" {', '.join(map(str, folders))}, where this Python ({sys.executable}) would keep it."
            f" Debian and Ubuntu: apt-get install libpython{_VERSION}."
            f" Fedora: dnf install python3-libs, or python{_VERSION}-libs for a Python that is not the system's."
            f" uv: uv python install {_VERSION}, then make PYTHON=$(uv python find --managed-python {_VERSION})."
            f" pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {_VERSION}."
        ) from None
    return None


def _folders() -> Iterator[Path]:
    """Where a Python keeps it. The places of its build come last: uv's and conda's Pythons have been moved since."""
    for root in (Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]):
        yield from (root / "lib", root / "lib64")
    if built := sysconfig.get_config_var("LIBDIR"):
        yield Path(built)
        if multiarch := sysconfig.get_config_var("MULTIARCH"):
            yield Path(built) / multiarch


def main() -> int:
    """The command line above."""
    try:
        find_libpython()
    except ServerStartError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
