"""When Triton cannot start, the error comes at once, with the reason; and what the Python of its stubs can import."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipserve_server.errors import RepositoryEmpty, ServerStartError
from clipserve_server.log import TritonLog
from clipserve_server.python_stubs import LIBPYTHON, find_libpython
from clipserve_server.repository import choose_models, read_repository
from clipserve_server.triton import Triton
from clipserve_server.wheel import find_wheel
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.watching import stubs

ROOT = Path(__file__).parents[2]
SECONDS = 60


def test_the_library_is_the_one_of_this_very_python() -> None:
    found = find_libpython()
    if found is None:
        pytest.skip("this Python has no shared library of its own")
    assert found.name == LIBPYTHON
    assert found.is_relative_to(sys.base_prefix)


def test_a_python_that_was_moved_finds_its_library_where_it_is_now(tmp_path: Path) -> None:
    """uv's and conda's: LIBDIR is where they were built, on somebody else's machine."""
    binary = Path(sys.executable).resolve()
    (tmp_path / "bin").mkdir()
    python = Path(shutil.copy(binary, tmp_path / "bin"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / LIBPYTHON).write_bytes(b"found by its name alone")
    (tmp_path / "lib" / binary.name).symlink_to(sysconfig.get_path("stdlib"))
    code = "from clipserve_server.python_stubs import find_libpython; print(find_libpython())"
    environment = {"PYTHONPATH": str(ROOT / "server"), "LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(tmp_path / "lib" / LIBPYTHON)


@pytest.mark.parametrize(
    ("version", "is_served"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False), ((3, 14), False)]
)
def test_make_env_refuses_at_once_a_python_that_the_server_does_not_run_on(
    tmp_path: Path, version: tuple[int, int], is_served: bool
) -> None:
    python, venv = tmp_path / "python", tmp_path / "venv"
    # Of that version as far as the program given by -c can see; nothing is installed by it.
    pretence = f"import sys; sys.version_info = {version}; exec(sys.argv[2])"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exit 1\nexec {sys.executable} -c "{pretence}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "env", f"PYTHON={python}", f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode
    assert ("needs Python 3.11 or 3.12" in done.stdout) != is_served
    assert not venv.exists()


def test_a_library_that_is_nowhere_is_named_with_the_remedies() -> None:
    with pytest.raises(ServerStartError, match=r"libpython3\.99\.so\.1\.0") as raised:
        find_libpython("libpython3.99.so.1.0")
    for remedy in ("apt-get install libpython3.", "dnf install python3-libs", "uv python install 3."):
        assert remedy in str(raised.value)


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = tmp_path / "motion" / "config.pbtxt"
    config.mkdir(parents=True)
    with pytest.raises(RepositoryEmpty, match=r"motion/config\.pbtxt cannot be read by user \d+: Is a directory"):
        read_repository(tmp_path)


def test_a_version_that_cannot_be_read_is_named(onnx_repository: Path, tmp_path: Path) -> None:
    """A file stands for a folder of another user here, because the tests may run as root."""
    repository = copy_model(onnx_repository, tmp_path / "repository")
    shutil.rmtree(repository / "motion_net" / "1")
    (repository / "motion_net" / "1").touch()
    with pytest.raises(RepositoryEmpty, match=r"motion_net/1 cannot be read by user \d+: Not a directory"):
        choose_models(repository)


# As where the disk is full: no file grows beyond 200 kB, which is less than the Python backend has.
SERVE_WITH_SMALL_FILES = """
import resource
from clipserve.command_line import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
main()
"""


def test_a_full_temporary_folder_is_named_with_the_remedy(onnx_repository: Path, tmp_path: Path) -> None:
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    done = subprocess.run(
        [sys.executable, "-c", SERVE_WITH_SMALL_FILES, "serve", "motion", "--repository", onnx_repository, *ports],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert f"temporary files cannot be written in {tmp_path}: File too large; make room there" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_temporary_folder_is_told(
    onnx_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(ServerStartError, match=r"cannot be written: No such file .* set TMPDIR to a folder with room"):
        Triton(onnx_repository, models=["motion"], **ANY_PORTS).start()


def test_the_temporary_folder_of_a_server_has_a_lock(tmp_path: Path) -> None:
    """systemd-tmpfiles removes what has not been used for days, but no folder with a lock (tmpfiles.d(5), Age)."""
    ask = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", ask, str(tmp_path)]
    guard = [sys.executable, "-m", "clipserve_server.guard", "5", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*guard, *command], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        assert "BlockingIOError" in running.stdout.read()
    assert subprocess.run(command, check=False).returncode == 0, "it ends with the guard"


def test_a_temporary_folder_from_which_nothing_can_be_loaded_is_told(
    onnx_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /tmp is on hardened machines."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(ServerStartError, match=f"{tmp_path} is mounted with noexec: set TMPDIR to a folder"):
        Triton(onnx_repository, models=["motion"], **ANY_PORTS).start()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "how"), [(137, "SIGKILL"), (255, "status 255"), (1, "status 1")])
def test_an_exit_status_is_a_signal_only_where_there_is_one(tmp_path: Path, status: int, how: str) -> None:
    error = TritonLog(tmp_path / "triton.log").explain_exit(status, was_ready=True)
    assert str(error).startswith(f"Triton ended by itself ({how})")


def test_a_stub_that_cannot_be_loaded_ends_the_start_with_the_words_of_the_loader(
    onnx_repository: Path, tmp_path: Path
) -> None:
    """A wheel whose stub is linked with a library that is not there, as it is on a machine without libpython."""
    wheel = find_wheel()
    site_packages = tmp_path / "packages"
    (site_packages / "pytriton").mkdir(parents=True)
    (site_packages / "pytriton" / "__init__.py").touch()
    (site_packages / "nvidia_pytriton.libs").symlink_to(wheel.libraries)
    root = site_packages / "pytriton" / "tritonserver"
    stub = wheel.python_backend[-1].relative_to(wheel.root)
    shutil.copytree(wheel.root / stub.parents[1], root / stub.parents[1])
    (root / stub).write_bytes((root / stub).read_bytes().replace(b"libpython3.", b"libpythin3."))
    for name in ("bin", "backends"):
        (root / name).symlink_to(wheel.root / name)
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    log = tmp_path / "triton.log"
    done = subprocess.run(
        [sys.executable, "-m", "clipserve", "serve", "motion", "--repository", onnx_repository, "--log", log, *ports],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site_packages)},
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "error while loading shared libraries: libpythin3." in done.stderr
    assert f"(log: {log})" in done.stderr
    assert "libpythin3." in log.read_text()


def test_a_stub_that_dies_before_its_first_word_ends_the_start(onnx_repository: Path, tmp_path: Path) -> None:
    """Triton waits for such a one for ever."""
    killed: list[int] = []

    def kill(ready: int, total: int) -> None:
        if not killed:
            killed.extend(stubs(triton, "decode"))
            for process in killed:
                os.kill(process, signal.SIGKILL)

    triton = Triton(onnx_repository, models=["motion"], log=tmp_path / "triton.log", progress=kill, **ANY_PORTS)
    with pytest.raises(ServerStartError, match=r"log: .*triton.log"):
        triton.start()
    assert killed


def test_stubs_and_decode_workers_import_what_pythonpath_names(
    onnx_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "only_by_pythonpath.py").touch()
    repository = copy_model(onnx_repository, tmp_path / "repository")
    code = repository / "decode" / "1"
    for path in (code / "model.py", code / "packages" / "decode_pool" / "worker.py"):
        path.write_text(path.read_text().replace("\nimport ", "\nimport only_by_pythonpath\nimport ", 1))
    with pytest.raises(ServerStartError, match="only_by_pythonpath"):
        Triton(repository, models=["motion"], log=tmp_path / "triton.log", **ANY_PORTS).start()
    monkeypatch.setenv("PYTHONPATH", str(packages))
    with KilledTriton(repository, models=["motion"], **ANY_PORTS) as triton:
        assert triton.find_failure() is None
