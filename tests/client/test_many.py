"""Many videos through a real gRPC connection, blocking and awaited."""

import asyncio
import gc
import itertools
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque

import grpc
import pytest

from clipserve import AsyncVideoClassifier, NotAVideo, RequestCancelled, UnknownModel, VideoClassifier, VideoNotReadable
from clipserve.weak_group import WeakGroup
from tests.interrupts import interruptible
from tests.watching import HANG_SECONDS, at_once, wait_for, when

NOT_A_VIDEO = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")
GOOD, BROKEN = b"good", b"broken"


@pytest.fixture
def _one_breaks(triton):
    triton.failures_by_content[BROKEN] = NOT_A_VIDEO


def names(stream):
    return [row.id for row in stream]


def test_rows_come_in_the_order_of_the_source(connect, triton):
    triton.held.add(b"0")
    when(lambda: triton.in_flight < len(triton.requests), triton.release.set)  # another one is answered
    assert names(connect().classify_many([b"%d" % number for number in range(12)])) == list(map(str, range(12)))


def test_rows_come_as_they_finish(connect, triton):
    triton.held.add(b"0")
    stream = connect().classify_many([b"%d" % number for number in range(12)], ordered=False)
    ids = [next(stream).id for _ in range(11)]
    triton.release.set()
    ids += names(stream)
    assert ids[-1] == "0"
    assert sorted(ids, key=int) == list(map(str, range(12)))


@pytest.mark.parametrize("parallel", [1, 3])
def test_parallel_limits_the_calls_in_flight(connect, triton, parallel):
    triton.hold, triton.delay = True, 0.02
    when(lambda: triton.in_flight >= parallel, triton.release.set)
    assert len(names(connect().classify_many([GOOD] * 12, parallel=parallel))) == 12
    assert triton.most_in_flight == parallel


def test_a_row_has_the_prediction_the_label_and_the_time(connect, triton):
    triton.delay = 0.05
    (row,) = connect().classify_many([{"id": 7, "path": GOOD, "label": "archery"}], top_k=2, features=True, report=True)
    assert (row.id, row.label, row.error) == ("7", "archery", None)
    assert [scored.label for scored in row.prediction] == ["archery", "deadlifting"]
    assert row.prediction.features.shape == (8,)
    assert row.prediction.report["codec"] == "h264"
    assert 50 < row.milliseconds < HANG_SECONDS * 1000


@pytest.mark.usefixtures("_one_breaks")
def test_a_failure_is_kept_in_its_place(connect):
    stream = connect().classify_many([GOOD, "missing.mp4", BROKEN, GOOD])
    rows = list(stream)
    assert [type(row.error) for row in rows] == [type(None), VideoNotReadable, NotAVideo, type(None)]
    assert rows[1].video == "missing.mp4"
    assert "'missing.mp4': No such file" in str(rows[1].error)
    assert str(stream.summary) == "2 classified, 2 failed (1 VideoNotReadable, 1 NotAVideo)"


@pytest.mark.usefixtures("_one_breaks")
def test_a_failure_is_left_out_and_reported(connect):
    stream = connect().classify_many([GOOD, GOOD, BROKEN, GOOD], on_error="drop")
    assert names(stream) == ["0", "1", "3"]
    (failure,) = stream.failures
    assert (failure.id, failure.error.code) == ("2", "not-a-video")
    assert (stream.summary.succeeded, dict(stream.summary.failed)) == (3, {"NotAVideo": 1})
    table = connect().classify_many([GOOD, GOOD, BROKEN, GOOD], on_error="drop").table()
    assert (len(table), [row.id for row in table.failures]) == (3, ["2"])


@pytest.mark.usefixtures("_one_breaks")
def test_on_error_raise_ends_the_run_at_a_failure(connect):
    stream = connect().classify_many([GOOD, BROKEN, GOOD], on_error="raise")
    assert next(stream).prediction
    with pytest.raises(NotAVideo):
        next(stream)
    assert list(stream) == []


def test_an_unknown_model_ends_the_run_in_any_case(connect):
    with pytest.raises(UnknownModel, match="mvit_base_16x4, x3d_m"):
        list(connect("x3d_q").classify_many([GOOD] * 3, on_error="keep"))


def test_a_kept_failure_does_not_hold_on_to_the_video(connect, triton):
    triton.failure = NOT_A_VIDEO
    (row,) = connect().classify_many([GOOD])
    link = row.error
    assert link.__cause__ is not None
    while link is not None:
        assert link.__traceback__ is None
        link = link.__cause__ or link.__context__


@pytest.mark.parametrize("arguments", [{"parallel": 0}, {"parallel": 2.0}, {"on_error": "ignore"}])
def test_wrong_arguments_are_refused_at_once(connect, arguments):
    from clipserve import InvalidRequest

    with pytest.raises(InvalidRequest, match=next(iter(arguments))):
        connect().classify_many([GOOD], **arguments)
    with pytest.raises(InvalidRequest, match="retry_seconds"):
        connect().classify_many([GOOD], retry_seconds=-1)


def test_a_source_that_breaks_in_the_middle_does_so_after_the_rows_before(connect):
    def videos():
        yield GOOD
        yield GOOD
        raise OSError("the disk is gone")

    stream = connect().classify_many(videos())
    assert (next(stream).id, next(stream).id) == ("0", "1")
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


class Clip:
    """A path that can be watched."""

    def __fspath__(self):
        return "missing.mp4"


def test_a_million_videos_are_held_a_few_at_a_time(connect):
    alive = weakref.WeakSet()
    most = 0

    def videos():
        nonlocal most
        for _ in range(1_000_000):
            clip = Clip()
            alive.add(clip)
            most = max(most, len(alive))
            # A mapping: the entry holds the object itself.
            yield {"path": clip, "id": "x"}

    stream = connect().classify_many(videos(), parallel=5)
    assert sum(1 for _ in itertools.islice(stream, 3000)) == 3000
    assert most <= 2 * 5 * 4  # what runs ahead, and what threads have not let go of
    stream.close()
    del stream
    wait_until(lambda: gc.collect() is not None and not alive)  # threads that read may still be at it


def test_closing_ends_calls_and_threads_at_once(triton):
    triton.hold = True
    with VideoClassifier("x3d_m", triton.url) as classifier:
        stream = classifier.classify_many([GOOD] * 50, parallel=3)
        caught = []

        def take():
            try:
                next(stream)
            except RequestCancelled as error:
                caught.append(error)

        thread = threading.Thread(target=take)
        thread.start()
        wait_until(lambda: triton.in_flight == 3)
        with at_once():
            stream.close()
            thread.join()
        assert len(caught) == 1
        assert not list_workers()
        wait_until(lambda: triton.cancelled == 3)


def test_a_closed_stream_says_so_rather_than_look_complete(connect):
    stream = connect().classify_many([GOOD] * 50)
    assert next(stream).id == "0"
    stream.close()
    with pytest.raises(RequestCancelled):
        next(stream)
    whole = connect().classify_many([GOOD])
    assert len(list(whole)) == 1
    whole.close()
    assert list(whole) == []


def test_runs_that_are_closed_at_any_moment_end_with_one_error_and_no_thread(triton):
    triton.delay = 0.002
    for number in range(40):
        with VideoClassifier("x3d_m", triton.url) as classifier:
            stream = classifier.classify_many(itertools.repeat(GOOD), ordered=number % 2 == 0)
            threading.Timer(number * 0.002, stream.close).start()
            with pytest.raises(RequestCancelled):
                list(stream)
    wait_until(lambda: not list_workers())


def test_threads_may_begin_runs_while_others_look_at_those_there_are():
    class Run:
        pass

    def begin():
        while not stop.is_set():
            kept.append(Run())
            group.add(kept[-1])

    group, kept, stop = WeakGroup(), deque(maxlen=8), threading.Event()
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=begin) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            group.alive()
    finally:
        stop.set()
        sys.setswitchinterval(switching)
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("leave", ["with", "classifier", "forgotten"])
def test_leaving_in_the_middle_leaves_no_thread(triton, leave):
    with VideoClassifier("x3d_m", triton.url) as classifier:
        if leave == "with":
            with classifier.classify_many([GOOD] * 50) as stream:
                next(stream)
            assert not list_workers()
        elif leave == "forgotten":
            for _ in classifier.classify_many([GOOD] * 50):
                break
            gc.collect()
            assert not list_workers()
        else:
            stream = classifier.classify_many([GOOD] * 50)
            next(stream)
            assert list_workers()
    assert not list_workers()


@pytest.mark.parametrize("ordered", [True, False])
async def test_several_tasks_share_the_rows_of_a_stream(triton, ordered):
    async with AsyncVideoClassifier("x3d_m", triton.url) as classifier:
        stream = classifier.classify_many([GOOD] * 40, ordered=ordered)

        async def take():
            return [row.id async for row in stream]

        taken = await asyncio.gather(*(take() for _ in range(3)))
    assert sorted(map(int, itertools.chain(*taken))) == list(range(40))


async def test_leaving_the_async_stream_cancels_its_calls(triton):
    triton.held.add(b"slow")
    with at_once():
        async with AsyncVideoClassifier("x3d_m", triton.url) as classifier:
            async with classifier.classify_many([GOOD, b"slow", b"slow"]) as stream:
                assert (await anext(stream)).id == "0"
            stream = classifier.classify_many([GOOD, b"slow"])
            assert (await anext(stream)).id == "0"


async def test_closing_the_classifier_ends_a_waiting_stream_without_cancelling_its_task(triton):
    triton.hold = True
    classifier = AsyncVideoClassifier("x3d_m", triton.url)
    task = asyncio.create_task(classifier.classify_many([GOOD] * 9).table())
    while not triton.in_flight:
        await asyncio.sleep(0.01)
    await classifier.close()
    with pytest.raises(RequestCancelled):
        await task


def test_ctrl_c_leaves_no_thread_and_no_call(triton):
    triton.hold = True
    program = f"""
import threading
from clipserve import VideoClassifier
with VideoClassifier("x3d_m", {triton.url!r}) as classifier:
    stream = classifier.classify_many([b"video"] * 50, parallel=4)
    try:
        list(stream)
    except KeyboardInterrupt:
        print(threading.active_count())
"""
    process = subprocess.Popen(
        interruptible([sys.executable, "-c", program]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: triton.in_flight == 4)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (0, "1\n"), stderr
    wait_until(lambda: triton.cancelled == 4)


def list_workers():
    """The threads of runs; the servers of the tests have threads, too."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("clipserve")]


def wait_until(condition):
    assert wait_for(condition)
