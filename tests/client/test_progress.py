"""A bar is shown on a terminal and in a notebook, and nowhere else."""

import asyncio
import os
import pty
import re
import subprocess
import sys
import threading

import grpc
import nbformat
import pytest
from nbclient import NotebookClient

from clipserve import AsyncVideoClassifier, InvalidRequest
from tests.watching import HANG_SECONDS, wait_for

NOT_A_VIDEO = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")

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


async def test_the_bar_of_a_run_in_asyncio_that_is_left_by_break_ends(triton):
    before = threading.enumerate()
    async with AsyncVideoClassifier("x3d_m", triton.url) as classifier:
        async for _ in classifier.classify_many([b"video"] * 30, progress=True):
            break
        bars = [thread for thread in threading.enumerate() if thread not in before and "Refresh" in repr(thread)]
        assert await asyncio.to_thread(wait_for, lambda: not any(bar.is_alive() for bar in bars))


def test_progress_false_shows_no_bar(triton):
    assert run_on_terminal(triton.url, False) == ""


def test_without_a_terminal_or_notebook_there_is_no_bar(triton):
    program = PROGRAM.format(url=triton.url, progress=None)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (result.stdout, result.stderr) == ("30\n", "")


def test_a_wanted_bar_without_rich_names_the_extra(connect, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)  # as Python marks what cannot be imported
    with pytest.raises(InvalidRequest, match=r"pip install 'clipserve\[cli\]'"):
        connect().classify_many([b"video"], progress=True)
    assert len(connect().classify_many([b"video"], progress=None).table()) == 1


def run_in_notebook(url, *runs):
    """For each run, what its cell displays in the end: text and HTML.

    A run is a source, what is said of progress, and when a bar comes by itself if not after a second.
    """
    connect = (
        "from clipserve import VideoClassifier\n"
        "from clipserve.runs import progress\n"
        f"classifier = VideoClassifier('x3d_m', {url!r})"
    )
    cells = [
        f"progress.NOTEBOOK_AFTER_SECONDS = {after[0] if after else 1.0}\n"
        f"table = classifier.classify_many({source}, parallel=2, progress={wanted}).table()"
        for source, wanted, *after in runs
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (connect, *cells)])
    NotebookClient(notebook, timeout=round(HANG_SECONDS), kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells[1:]]
    assert {output.output_type for cell in outputs for output in cell} <= {"display_data"}, "there is a warning"
    return [[(output.data["text/plain"], output.data["text/html"]) for output in cell] for cell in outputs]


def test_in_a_notebook_a_bar_that_is_wanted_counts_to_the_end(triton):
    triton.failures_by_content[b"broken"] = NOT_A_VIDEO
    counted, uncounted = run_in_notebook(
        triton.url, ('[b"video"] * 5 + [b"broken"]', True), ('(b"video" for _ in range(3))', True)
    )
    ((text, html),) = counted
    assert re.fullmatch(r"videos 6/6 in \d+ s, 1 failed", text)
    assert '<progress value="6" max="6">' in html
    ((text, html),) = uncounted
    assert text.startswith("videos 3/? in")
    assert "<progress" not in html


def test_a_notebook_shows_a_bar_by_itself_when_the_run_is_long(triton):
    triton.delays[b"slow"] = 0.2
    # A second may pass in the short run, too, on a busy machine.
    short, long, unwanted = run_in_notebook(
        triton.url, ('[b"video"] * 2', None, HANG_SECONDS), ('[b"slow"] * 5', None, 0.3), ('[b"slow"] * 5', False, 0.3)
    )
    assert (short, unwanted) == ([], [])
    ((text, _),) = long
    assert text.startswith("videos 5/5 in")
