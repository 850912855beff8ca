"""A bar is shown on a terminal and nowhere else."""

import os
import pty
import subprocess
import sys

import pytest

from clipserve import InvalidRequest

PROGRAM = """
from clipserve import VideoClassifier
with VideoClassifier("x3d_m", {url!r}) as classifier:
    print(len(classifier.classify_many([b"video"] * 30, progress={progress}).table()))
"""


def run_on_terminal(url, progress):
    """What the program writes to a stderr that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(url=url, progress=progress)],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    assert process.communicate()[0] == b"30\n"
    return said.decode()


def test_on_a_terminal_there_is_a_bar_with_the_count(triton):
    assert "30/30" in run_on_terminal(triton.url, None)


def test_or_none_if_none_is_wanted(triton):
    assert run_on_terminal(triton.url, False) == ""


def test_anywhere_else_nothing_is_written(triton):
    program = PROGRAM.format(url=triton.url, progress=None)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (result.stdout, result.stderr) == ("30\n", "")


def test_a_wanted_bar_without_rich_names_the_extra(connect, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as Python marks what cannot be imported
    with pytest.raises(InvalidRequest, match=r"pip install 'clipserve\[cli\]'"):
        connect().classify_many([b"video"], progress=True)
    assert len(connect().classify_many([b"video"], progress=None).table()) == 1
