"""What tests leave behind fails the run, by its name, and keeps no process alive: a plugin of pytest.

Threads that are no daemons keep an interpreter from ending; processes outlive it. Each process of a parallel run
(pytest-xdist) looks for what its own tests left behind, and the one that started them reports it.
"""

import faulthandler
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

# Every process that a test starts inherits it, whatever becomes of its parent.
MARK = "CLIPSERVE_TEST_RUN"
# For what is ending by itself. Workers of Ray outlive ray.shutdown() by more than 5 s on a busy machine.
GRACE_SECONDS = float(os.environ.get("TEST_GRACE_SECONDS", "30"))
EXIT_SECONDS = 60.0  # for the interpreter to end after the last line
FOUND = pytest.StashKey[list[str]]()
OUTPUT = "left_behind"  # what a process of a parallel run sends to the one that reports


def pytest_configure(config: pytest.Config) -> None:
    # Set anew each time: a run of pytest inside a test answers for what it started itself.
    os.environ[MARK] = f"{os.getpid()}-{uuid.uuid4().hex}"
    config.stash[FOUND] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A process of a parallel run has ended."""
    node.config.stash[FOUND] += getattr(node, "workeroutput", {}).get(OUTPUT, [])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    threads, processes = wait_for_ends(GRACE_SECONDS)
    found = session.config.stash[FOUND]
    found += [*map(describe_thread, threads), *map(describe_process, processes)]
    for process in processes:
        process.kill()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[OUTPUT] = found
    elif found and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if found := config.stash[FOUND]:
        terminalreporter.section("left behind by tests", red=True)
        for line in found:
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if config.stash[FOUND] and lasting_threads():
        os._exit(pytest.ExitCode.TESTS_FAILED)
    # Whatever else keeps the interpreter from ending is shown by the stacks of all threads, and ended. A process of a
    # parallel run waits here for the others; the one that started it ends it.
    if hasattr(config, "workerinput"):
        return
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=sys.__stderr__ or sys.stderr)


def wait_for_ends(seconds: float) -> tuple[list[threading.Thread], list[psutil.Process]]:
    """The threads and processes that are still there after so long; none as soon as there are none."""
    deadline = time.monotonic() + seconds
    while True:
        threads, processes = lasting_threads(), started_processes()
        if not (threads or processes) or time.monotonic() > deadline:
            return threads, processes
        time.sleep(0.05)


def lasting_threads() -> list[threading.Thread]:
    """Those that keep the interpreter from ending. Idle ones of a pool do not: it tells them to end."""
    here = threading.current_thread()
    others = [thread for thread in threading.enumerate() if thread is not here and not thread.daemon]
    return [thread for thread in others if not is_idle(thread)]


def is_idle(thread: threading.Thread) -> bool:
    """Whether it is a pool's worker that waits for work."""
    frame = sys._current_frames().get(thread.ident or 0)
    code = frame.f_code if frame else None
    return code is not None and (code.co_name, Path(code.co_filename).name) == ("_worker", "thread.py")


def started_processes() -> list[psutil.Process]:
    """Those that carry the mark of this run. Not those that Python itself ends together with the interpreter."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != os.getpid()
                and process.environ().get(MARK) == os.environ[MARK]
                and process.status() != psutil.STATUS_ZOMBIE
                and "multiprocessing.resource_tracker" not in " ".join(process.cmdline())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def describe_thread(thread: threading.Thread) -> str:
    """Its name, and where it is."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = f", in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})" if frame else ""
    return f"thread {thread.name!r}{where}"


def describe_process(process: psutil.Process) -> str:
    """Its number and command line."""
    try:
        return f"process {process.pid}: {' '.join(process.cmdline())[:300]}"
    except psutil.Error:
        return f"process {process.pid}, gone by now"
