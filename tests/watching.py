"""What tests see of a running service from outside: its metrics, its processes, and whether something comes true.

Tests wait for events. Where a limit is needed it is one that only a hang reaches, on a machine that is busy as well.
"""

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from clipserve_server.triton import Triton

HANG_SECONDS = 60.0  # nothing that goes well takes as long
NEVER_SECONDS = 500.0  # for a limit of the code under test that it must not wait for


def wait_for(condition: Callable[[], object], seconds: float = HANG_SECONDS) -> bool:
    """Whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def when(condition: Callable[[], object], act: Callable[[], object]) -> threading.Thread:
    """Do something in a thread of its own as soon as `condition` comes true."""
    thread = threading.Thread(target=lambda: wait_for(condition) and act(), daemon=True)
    thread.start()
    return thread


@contextmanager
def at_once() -> Iterator[None]:
    """What happens in the block must not wait for a limit of NEVER_SECONDS."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < HANG_SECONDS


def metric(triton: Triton, name: str) -> float:
    """The sum of the metrics whose line begins with `name`."""
    return read_metric(triton.metrics_url, name)


def read_metric(url: str, name: str) -> float:
    """The same of the metrics page at `url`."""
    with urllib.request.urlopen(url) as response:
        page = response.read().decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def decode_workers(triton: Triton) -> list[int]:
    """Process ids of the decode step's workers, found by the code they run."""
    return _find_workers(triton, b"decode_pool.worker")


def window_workers(triton: Triton) -> list[int]:
    """Process ids of the processes that decode for timelines."""
    return _find_workers(triton, b"decode_pool.window_worker")


def _find_workers(triton: Triton, program: bytes) -> list[int]:
    code = f"PYTHONPATH={triton.repository}/decode/1".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if program in (folder / "cmdline").read_bytes() and code in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def server_of(triton: Triton) -> psutil.Process:
    """tritonserver itself: what its guard started. Others have its name and its words between fork and exec."""
    assert triton._guard is not None
    (server,) = psutil.Process(triton._guard.pid).children()
    return server


def processes_naming(text: str) -> list[int]:
    """Processes whose command line or environment has `text`, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            about = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in about and state != "Z" and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def stubs(triton: Triton, model: str) -> list[int]:
    """Process ids of a Python model's instances; each names its server's backends and its model.

    Not their children, which have the same words between fork and exec.
    """
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
            if words[0].startswith(str(triton.folder / "backends")) and any(
                word.startswith(f"{model}_") for word in words
            ):
                found[int(path.parent.name)] = psutil.Process(int(path.parent.name)).ppid()
        except (OSError, psutil.Error):
            continue
    return [pid for pid, parent in found.items() if parent not in found]
