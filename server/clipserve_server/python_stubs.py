"""What the stubs of Triton's Python backend need. They are the processes that run Python models.

A stub embeds Python in isolated mode, which ignores PYTHONPATH and a user's own packages. It uses the first python3 on
PATH and the virtual environment of that. So the server makes an environment of its own, puts it first on PATH, and
lists in it where this Python finds packages. The child processes of the stubs use the same environment.

A stub is linked with the shared library of this Python:

    PYTHONPATH=server python3 -m clipserve_server.python_stubs

exits with status 1 and says what to install where there is none. It runs before anything is installed, so this module
imports Python's standard library only.
"""

import ctypes
import os
import site
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

from clipserve_server.errors import ServerStartError
from clipserve_server.wheel import TritonWheel

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{_VERSION}.so.1.0"


def make_environment(folder: Path, wheel: TritonWheel) -> dict[str, str]:
    """Make the stubs' Python in `folder`; returns tritonserver's environment. Raises ServerStartError, see below."""
    libpython = find_libpython()
    venv.EnvBuilder(symlinks=True).create(folder)
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    (packages / "clipserve.pth").write_text(_pth_line(*find_packages()))
    libraries = folder / "libraries"
    libraries.mkdir()
    if libpython is not None:
        # Alone in a folder: other libraries beside it must not come before the system's own.
        (libraries / LIBPYTHON).symlink_to(libpython)
    paths = (str(wheel.libraries), str(libraries), os.environ.get("LD_LIBRARY_PATH"))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join((str(folder / "bin"), os.environ.get("PATH", os.defpath))),
        # Threads of several pools that spin while they wait take the cores from each other.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def find_packages() -> tuple[list[str], list[str]]:
    """The folders of PYTHONPATH, and those of installed packages."""
    path = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    installed = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        installed = [site.getusersitepackages(), *installed]
    return path, installed


def _pth_line(path: list[str], installed: list[str]) -> str:
    """In ASCII, because Python reads .pth files in the encoding of the locale."""
    return f"import site, sys; sys.path[:0] = {path!a}; list(map(site.addsitedir, {installed!a}))\n"


def find_libpython(name: str = LIBPYTHON) -> Path | None:
    """The path of the library; None where only the loader knows it. Raises ServerStartError where there is none."""
    folders = [folder for folder in dict.fromkeys(_library_folders()) if folder.is_dir()]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    try:
        # A Python without a shared library may have the system's beside it, wherever the system keeps it.
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


def _library_folders() -> Iterator[Path]:
    """Where a Python keeps it. The folders of its build come last: uv and conda move a Python after the build."""
    for root in (Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]):
        yield from (root / "lib", root / "lib64")
    if built := sysconfig.get_config_var("LIBDIR"):
        yield Path(built)
        if multiarch := sysconfig.get_config_var("MULTIARCH"):
            yield Path(built) / multiarch


def main() -> int:
    """Run the command line above."""
    try:
        find_libpython()
    except ServerStartError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
