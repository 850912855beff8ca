"""One awaited classifier in several event loops: one after the other, or each in a thread of its own."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest

from clipserve import AsyncVideoClassifier, InvalidRequest, RequestCancelled

LOOPS = 4


@pytest.fixture
def classifier(triton):
    made = AsyncVideoClassifier("x3d_m", triton.url)
    yield made
    triton.release.set()
    asyncio.run(made.close())


async def ask(classifier, times=5):
    predictions = [await classifier.classify(b"video") for _ in range(times)]
    return [prediction.top.label for prediction in predictions]


def test_a_second_loop_is_answered_like_the_first(classifier):
    for _ in range(LOOPS):
        assert asyncio.run(ask(classifier)) == ["archery"] * 5
        assert len(asyncio.run(classifier.classify_many([b"video"] * 5).table())) == 5
    assert asyncio.run(classifier.models()) == ["mvit_base_16x4", "x3d_m"]


def test_loops_in_threads_are_answered_at_the_same_time(classifier, triton):
    triton.hold = True
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(ask(classifier)))) for _ in range(LOOPS)]
    for thread in threads:
        thread.start()
    triton.wait_for_calls(LOOPS)
    triton.release.set()
    for thread in threads:
        thread.join()
    assert answers == [["archery"] * 5] * LOOPS


def test_a_program_with_several_loops_gets_no_warning(triton):
    program = f"""
import asyncio, gc, threading
from clipserve import AsyncVideoClassifier
classifier = AsyncVideoClassifier("x3d_m", {triton.url!r})
async def ask():
    await classifier.classify(b"video")
    async for row in classifier.classify_many([b"video"] * 9):
        break
for _ in range(2):
    asyncio.run(ask())
    gc.collect()
threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
asyncio.run(classifier.close())
del classifier
gc.collect()
"""
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("work", ["call", "run"])
def test_closing_in_one_loop_ends_calls_in_another(classifier, triton, work):
    triton.hold = True
    ends = []

    async def wait():
        with pytest.raises(RequestCancelled) as caught:
            await (classifier.classify(b"video") if work == "call" else classifier.classify_many([b"video"]).table())
        ends.append(caught.value)

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    triton.wait_for_calls(1)
    asyncio.run(classifier.close())
    thread.join()
    assert len(ends) == 1
    with pytest.raises(InvalidRequest, match="closed"):
        asyncio.run(classifier.classify(b"video"))


def test_a_stopped_loop_does_not_block_close(classifier, triton):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(classifier.classify(b"video"))
    asyncio.run(classifier.close())
    with pytest.raises(InvalidRequest, match="closed"):
        loop.run_until_complete(classifier.classify(b"video"))
    loop.close()


class Reluctant:
    """A file whose reading takes as long as the test wants, and then fails."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.begun.set()
        self.go_on.wait(60)
        raise OSError("the disk is gone")


def test_a_stopped_loop_keeps_no_video_that_was_read_too_late(classifier):
    file = Reluctant()
    go_on, alive = file.go_on, weakref.ref(file)

    async def leave(file):
        async with classifier.classify_many([file]) as stream:
            task = asyncio.create_task(anext(stream))
            await asyncio.to_thread(file.begun.wait, 60)
        with pytest.raises(RequestCancelled):
            await task

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave(file))
    del file
    go_on.set()
    end = time.monotonic() + 60
    while alive():
        assert time.monotonic() < end, gc.get_referrers(alive())
        gc.collect()
        time.sleep(0.01)  # the thread that reads may still be at it
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_the_rows_of_one_run_are_taken_in_one_loop(classifier):
    stream = classifier.classify_many([b"video"] * 9)

    async def take():
        return await anext(stream)

    assert asyncio.run(take()).id == "0"
    with pytest.raises(InvalidRequest, match=r"another event loop.*start another run"):
        asyncio.run(take())
