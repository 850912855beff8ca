"""Sources that hang do not hold up the event loop, nor the end of a program."""

import asyncio
import contextlib
import fcntl
import gc
import itertools
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from array import array

import pytest

from clipserve import AsyncVideoClassifier, InvalidRequest, RequestCancelled
from tests.interrupts import interruptible

GOOD = b"good"
LONGEST_SECONDS = 60  # only a hang takes so long


@pytest.fixture
async def classifier(triton):
    async with AsyncVideoClassifier("x3d_m", triton.url) as opened:
        yield opened


class Gate:
    """Where a source waits in its thread until the event loop lets it through."""

    def __init__(self):
        self._reached, self._open = threading.Event(), threading.Event()

    def wait(self):
        """For the source: fails if the loop stands still meanwhile."""
        self._reached.set()
        assert self._open.wait(LONGEST_SECONDS), "the event loop does not go on while a source hangs"
        self._open.clear()

    async def open(self, times):
        """For the loop."""
        for _ in range(times):
            while not self._reached.is_set():
                await asyncio.sleep(0.001)
            self._reached.clear()
            self._open.set()


async def test_the_loop_goes_on_while_a_source_hangs(classifier):
    gate = Gate()

    def videos():
        for number in range(4):
            gate.wait()
            yield {"path": GOOD, "id": number}

    table, _ = await asyncio.gather(classifier.classify_many(videos()).table(), gate.open(4))
    assert [row.id for row in table] == ["0", "1", "2", "3"]


async def test_the_loop_goes_on_while_a_list_is_opened(classifier, tmp_path):
    """A pipe hangs in open() until somebody writes. What was written is read once."""
    pipe = tmp_path / "videos.csv"
    os.mkfifo(pipe)
    (tmp_path / "a.mp4").write_bytes(GOOD)

    async def write():
        with await open_for_reader(pipe) as file:
            file.write(b"path\na.mp4\n")
            await wait_until_read(file)

    work = asyncio.gather(classifier.classify_many(pipe).table(), write())
    table, _ = await asyncio.wait_for(work, LONGEST_SECONDS)
    assert [row.prediction.top.label for row in table] == ["archery"]


async def open_for_reader(pipe):
    """Open a pipe to write as soon as somebody opens it to read, without holding up the loop."""
    while True:
        with contextlib.suppress(OSError):  # nobody reads
            return open(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0)  # noqa: PTH123
        await asyncio.sleep(0.001)


async def wait_until_read(file):
    """Return when nothing is left in a pipe."""
    left = array("i", [1])
    while left[0]:
        await asyncio.sleep(0.001)
        fcntl.ioctl(file, termios.FIONREAD, left)


async def test_videos_are_in_flight_while_the_next_is_not_yet_there(classifier):
    release = threading.Event()

    def videos():
        yield GOOD
        release.wait(LONGEST_SECONDS)
        yield GOOD

    stream = classifier.classify_many(videos())
    assert (await asyncio.wait_for(anext(stream), LONGEST_SECONDS)).id == "0"
    release.set()
    assert (await asyncio.wait_for(anext(stream), LONGEST_SECONDS)).id == "1"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_no_more_is_read_ahead_than_is_bounded(classifier):
    read = 0

    def videos():
        nonlocal read
        for read in range(1, 1_000_001):  # noqa: B007 - counted for the test
            yield GOOD

    async with classifier.classify_many(videos(), parallel=2) as stream:
        for taken in range(1, 21):
            await anext(stream)
            await asyncio.sleep(0.005)
            assert read <= taken + 2 * 4 + 1
    await wait_for_no_reader()


async def test_a_wrong_list_is_an_error_of_the_first_row(classifier, tmp_path):
    (tmp_path / "videos.csv").write_text("file\na.mp4\n")
    stream = classifier.classify_many(tmp_path / "videos.csv")
    with pytest.raises(InvalidRequest, match="no column 'path'"):
        await anext(stream)


async def test_an_exit_in_a_source_reaches_the_caller(classifier):
    def videos():
        yield GOOD
        sys.exit(3)

    stream = classifier.classify_many(videos())
    await anext(stream)
    with pytest.raises(SystemExit):
        await anext(stream)


async def test_closing_ends_the_wait_for_a_source_that_hangs(classifier):
    release = threading.Event()

    def videos():
        release.wait(LONGEST_SECONDS)
        yield GOOD

    stream = classifier.classify_many(videos())
    task = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.05)
    await stream.close()
    with pytest.raises(RequestCancelled):
        await asyncio.wait_for(task, LONGEST_SECONDS)
    release.set()
    await wait_for_no_reader()


async def test_a_stream_without_references_stops_reading(classifier):
    async for _ in classifier.classify_many(itertools.repeat(GOOD)):
        break
    gc.collect()
    await wait_for_no_reader()


async def wait_for_no_reader():
    end = time.monotonic() + LONGEST_SECONDS
    while any(thread.name == "clipserve source" for thread in threading.enumerate()):
        assert time.monotonic() < end, "the thread that reads goes on"
        await asyncio.sleep(0.01)


def test_ctrl_c_ends_a_program_whose_source_hangs(triton, tmp_path):
    os.mkfifo(tmp_path / "videos.csv")
    program = f"""
import asyncio
from clipserve import AsyncVideoClassifier
async def main():
    async with AsyncVideoClassifier("x3d_m", {triton.url!r}) as classifier:
        print("begun", flush=True)
        await classifier.classify_many({str(tmp_path / "videos.csv")!r}).table()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("stopped")
"""
    process = subprocess.Popen(
        interruptible([sys.executable, "-c", program]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "begun\n"
        with asyncio.run(open_for_reader(tmp_path / "videos.csv")):  # it reads, and there is nothing to read
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=LONGEST_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (0, "stopped\n"), stderr
