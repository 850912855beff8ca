"""The Python that Triton's stubs run in: it imports what this Python imports.

A stub embeds Python in isolated mode: PYTHONPATH and a user's own packages mean nothing to it. It goes by the first
python3 on PATH and the virtual environment that this belongs to. So the server has an environment of its own, first on
PATH, whose one file names the places where this Python finds packages. The stubs' child processes use it as well.
"""

import os
import site
import sysconfig
import venv
from pathlib import Path

from clipserve_server.libpython import NAME, find_libpython
from clipserve_server.wheel import TritonWheel


def lay_out_python(folder: Path, wheel: TritonWheel) -> dict[str, str]:
    """Fill `folder`; gives the environment that tritonserver runs in. Raises ServerStartError without libpython."""
    libpython = find_libpython()
    venv.EnvBuilder(symlinks=True).create(folder)
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder)}))
    (packages / "clipserve.pth").write_text(_reach(*find_packages()))
    libraries = folder / "libraries"
    libraries.mkdir()
    if libpython is not None:
        # Alone in a folder: what else lies beside it must not come before the system's own libraries.
        (libraries / NAME).symlink_to(libpython)
    paths = (str(wheel.libraries), str(libraries), os.environ.get("LD_LIBRARY_PATH"))
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join((str(folder / "bin"), os.environ.get("PATH", os.defpath))),
        # Threads of several pools that spin while they wait take the cores from each other.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def find_packages() -> tuple[list[str], list[str]]:
    """PYTHONPATH, and the folders of installed packages."""
    path = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]  # noqa: PTH100
    installed = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        installed = [site.getusersitepackages(), *installed]
    return path, installed


def _reach(path: list[str], installed: list[str]) -> str:
    """A line of a .pth file. In ASCII, since Python reads these files in the encoding of the locale."""
    return f"import site, sys; sys.path[:0] = {path!a}; list(map(site.addsitedir, {installed!a}))\n"
