"""A run of tests that leaves something behind fails, names it, and ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.exports import ROOT
from tests.watching import wait_for

LEAVES_MUCH = """
import os, subprocess, threading

def test_it(tmp_path):
    threading.Thread(target=threading.Event().wait, name="the one that waits").start()
    # A pipe that nobody writes to.
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=open, args=(tmp_path / "pipe",), name="the one that opens").start()
    print("<child", subprocess.Popen(["sleep", "1001"]).pid, ">")
    # Its parent is gone before the test ends.
    subprocess.run(["sh", "-c", "sleep 1002 & echo '<orphan' $! '>'"])
"""
LEAVES_A_THREAD = """
import threading

def test_it():
    threading.Thread(target=threading.Event().wait, name="the one that waits").start()
"""
LEAVES_NOTHING = """
from concurrent.futures import ThreadPoolExecutor

pools = [ThreadPoolExecutor(2)]

def test_it():
    pools[0].submit(print).result()
"""


def run_tests(folder: Path, text: str, *options: str) -> tuple[int, str]:
    """pytest over this file of tests: its status, and what it said."""
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "tests.leftovers", *options, f"--rootdir={folder}", folder]
    # Into a file: a process that is left would hold a pipe open.
    with (folder / "said").open("w") as said:
        environment = {**os.environ, "TEST_GRACE_SECONDS": "5"}
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=said, stderr=said).returncode
    return status, (folder / "said").read_text()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.long
def test_what_is_left_behind_fails_the_run_by_its_name(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, LEAVES_MUCH)
    assert "1 passed" in said
    assert status == pytest.ExitCode.TESTS_FAILED
    told = said.partition("left behind by tests")[2]
    assert re.search(r"thread 'the one that waits', in \w+\.wait \(.*threading\.py:\d+\)", told)
    assert "thread 'the one that opens'" in told
    for what, seconds in (("child", 1001), ("orphan", 1002)):
        found = re.search(rf"<{what} (\d+) >", said)
        assert found is not None
        assert f"process {found[1]}: sleep {seconds}" in told
        assert wait_for(lambda pid=int(found[1]): has_ended(pid), 60)  # type: ignore[misc]


@pytest.mark.long
def test_a_parallel_run_fails_too(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, LEAVES_A_THREAD, "-n", "1")
    assert "1 passed" in said
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "thread 'the one that waits'" in said.partition("left behind by tests")[2]


def test_what_ends_with_the_interpreter_is_not_left_behind(tmp_path: Path) -> None:
    status, said = run_tests(tmp_path, LEAVES_NOTHING)
    assert "1 passed" in said
    assert status == pytest.ExitCode.OK, said
