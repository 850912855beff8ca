"""Sources that hang do not hold up the event loop, nor the end of a program."""

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tests.interrupts import hear_interrupts

from clipserve import AsyncVideoClassifier, InvalidRequest, RequestCancelled

GOOD = b"good"


@pytest.fixture
async def classifier(triton):
    async with AsyncVideoClassifier("x3d_m", triton.url) as opened:
        yield opened


async def longest_pause(work):
    """Seconds for which the loop did nothing else while it did `work`, and what came of it."""
    task = asyncio.ensure_future(work)
    longest = 0.0
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - before)
    return longest, task.result()


async def test_the_loop_goes_on_while_a_source_hangs(classifier):
    def videos():
        for number in range(4):
            time.sleep(0.3)
            yield {"path": GOOD, "id": number}

    pause, table = await longest_pause(classifier.classify_many(videos()).table())
    assert [row.id for row in table] == ["0", "1", "2", "3"]
    assert pause < 0.2


async def test_the_loop_goes_on_while_a_list_is_opened(classifier, tmp_path):
    """A pipe hangs in open() until somebody writes; reading the list a second time then finds nothing left."""
    pipe = tmp_path / "videos.csv"
    os.mkfifo(pipe)
    (tmp_path / "a.mp4").write_bytes(GOOD)

    def write():
        for _ in range(2):  # it is opened to be checked, and again to be read
            time.sleep(0.3)
            with pipe.open("w") as file:
                file.write("path\na.mp4\n")
            time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    pause, table = await longest_pause(classifier.classify_many(pipe).table())
    writer.join()
    assert [row.prediction.top.label for row in table] == ["archery"]
    assert pause < 0.2


async def test_videos_are_under_way_while_the_next_is_not_yet_there(classifier):
    release = threading.Event()

    def videos():
        yield GOOD
        release.wait(10)
        yield GOOD

    stream = classifier.classify_many(videos())
    assert (await asyncio.wait_for(anext(stream), 5)).id == "0"
    release.set()
    assert (await asyncio.wait_for(anext(stream), 5)).id == "1"
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
    before = read
    await asyncio.sleep(0.05)
    assert read == before


async def test_a_wrong_list_is_an_error_of_the_first_row(classifier, tmp_path):
    (tmp_path / "videos.csv").write_text("file\na.mp4\n")
    stream = classifier.classify_many(tmp_path / "videos.csv")
    with pytest.raises(InvalidRequest, match="no column 'path'"):
        await anext(stream)


async def test_even_an_exit_in_a_source_reaches_who_asks_for_rows(classifier):
    def videos():
        yield GOOD
        sys.exit(3)

    stream = classifier.classify_many(videos())
    await anext(stream)
    with pytest.raises(SystemExit):
        await anext(stream)


async def test_closing_wakes_who_waits_for_a_source_that_hangs(classifier):
    release = threading.Event()

    def videos():
        release.wait(10)
        yield GOOD

    stream = classifier.classify_many(videos())
    task = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.05)
    await stream.close()
    with pytest.raises(RequestCancelled):
        await asyncio.wait_for(task, 1)
    release.set()
    await wait_for_no_reader()


async def test_a_stream_that_is_forgotten_reads_no_further(classifier):
    async for _ in classifier.classify_many(itertools.repeat(GOOD)):
        break
    gc.collect()
    await wait_for_no_reader()


async def wait_for_no_reader():
    end = time.monotonic() + 5
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
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    try:
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=5)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (0, "stopped\n"), stderr
