"""Timelines from a server in the test: windows in order, once each, whatever breaks."""

import asyncio
import copy
import os
import pty
import subprocess
import sys
import threading
import time
import tracemalloc

import grpc
import numpy as np
import pytest

from clipserve import (
    AsyncVideoClassifier,
    DeadlineExceeded,
    DecodeCrashed,
    EmptyVideo,
    InvalidRequest,
    NotAVideo,
    RequestCancelled,
    ServerUnavailable,
    UnexpectedAnswer,
    UnknownModel,
    VideoClassifier,
    VideoNotReadable,
)
from tests.timeline.fake_timelines import FakeTimelines, start_server
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once, wait_for

VIDEO = b"video"
BROKEN = grpc.StatusCode.UNAVAILABLE


def indices(windows):
    return [window.index for window in windows]


def take_until(error, windows, match=""):
    """The windows, or rows, that come before the error, and the error."""
    taken = []

    with pytest.raises(error, match=match) as caught:
        taken.extend(windows)  # keeps those before the error
    return taken, caught.value


def test_windows_come_in_order_with_times_frames_labels_and_scores(connect, server):
    windows = list(connect().timeline(VIDEO, window=2, step=1, top_k=2))
    assert indices(windows) == list(range(10))
    third = windows[2]
    assert (third.start_seconds, third.end_seconds, third.start_frame, third.end_frame) == (2.0, 4.0, 50, 100)
    assert [scored.label for scored in third] == ["running", "resting"]
    assert (third.top.index, third.top.score) == (1, pytest.approx(0.8))
    assert third.scores.dtype == np.float32
    assert third.scores.tolist() == pytest.approx([0.05, 0.8, 0.03, 0.02])
    assert (third.features, third.report) == (None, None)
    assert repr(third) == "Window(2, 2 to 4 s: running 0.80, resting 0.05)"


def test_the_video_is_sent_once_with_the_options(connect, server):
    list(connect().timeline(VIDEO, window=0.5, step=3, sampling="clip", views=2, start=1, end=9, top_k=3))
    assert server.videos == [VIDEO]
    parameters = server.parameters()
    expected = {
        "model": "x3d_m", "window_seconds": 0.5, "step_seconds": 3.0, "policy": "clip", "views": 2,
        "start_seconds": 1.0, "end_seconds": 9.0, "top_k": 3, "features": False, "first_window": 0,
        "max_unacknowledged": 64, "triton_enable_empty_final_response": True,
    }  # fmt: skip
    assert {name: parameters[name] for name in expected} == expected
    assert "timeout" not in parameters


def test_headers_go_with_the_stream(connect, server):
    list(connect(headers={"Authorization": "Bearer x"}).timeline(VIDEO))
    assert server.metadata[0]["authorization"] == "Bearer x"


def test_features_and_report_come_if_requested(connect):
    windows = list(connect().timeline(VIDEO, features=True, report=True))
    assert windows[3].features.tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert windows[3].features.base is None, "a view would keep the whole message alive"
    assert windows[3].report == {"policy": "uniform"}


def test_facts_of_the_video_are_known_with_the_first_window(connect):
    timeline = connect().timeline(VIDEO)
    assert timeline.facts.windows_total is None
    next(timeline)
    assert (timeline.facts.windows_total, timeline.facts.duration_seconds) == (10, 10.0)
    assert (timeline.facts.truncated, timeline.facts.video["codec"]) == (False, "h264")
    assert timeline.video == "<bytes>"
    timeline.close()


def test_a_number_of_a_window_that_is_too_large_is_refused_with_the_limit(connect):
    said = "first_window must be a whole number from 0 to 2,147,483,647, got 10000000000"
    with pytest.raises(InvalidRequest, match=said):
        connect().timeline(VIDEO, first_window=10**10)


def test_a_bar_writes_nothing_after_its_end(server):
    """The timeline ends once more when the program does: rich has no modules then."""
    program = (
        "from clipserve import VideoClassifier\n"
        f"timeline = VideoClassifier('x3d_m', {server.url!r}).timeline(b'video', progress=True)\n"
        "print(len(list(timeline)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (done.stdout, done.stderr.strip()) == ("10\n", "")


def test_first_window_leaves_out_those_before(connect, server):
    assert indices(connect().timeline(VIDEO, first_window=7)) == [7, 8, 9]
    assert server.parameters()["first_window"] == 7
    assert indices(connect().timeline(VIDEO, first_window=10)) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"failures": [(2, BROKEN)]},
        {"failures": [(1, BROKEN), (0, BROKEN), (1, BROKEN)]},
        {"failures": [(1, "[busy] the server is stopping")]},
        {"failures": [(2, grpc.StatusCode.CANCELLED)]},
        {"cut": [2]},
    ],
)
def test_a_broken_stream_goes_on_with_the_missing_window(connect, server, broken):
    vars(server).update(copy.deepcopy(broken))
    assert indices(connect().timeline(VIDEO)) == list(range(10))
    assert server.sent == 10, "no window was sent twice"
    assert len(set(server.names)) == len(server.names) > 1, "each attempt has a name of its own"


def test_a_server_that_is_started_again_goes_on(connect, server):
    server.hold_after = 2
    timeline = connect().timeline(VIDEO, retry_seconds=30)
    windows = [next(timeline) for _ in range(6)]
    other = FakeTimelines()
    port = int(server.url.rpartition(":")[2])

    def restart():
        server.running_server.stop(0).wait(HANG_SECONDS)  # before the release, after which it might send all windows
        server.release.set()
        time.sleep(0.5)
        other.running_server = start_server(other, port)

    thread = threading.Thread(target=restart)
    thread.start()
    windows += timeline
    thread.join()
    other.running_server.stop(None).wait(HANG_SECONDS)
    assert indices(windows) == list(range(10))


@pytest.mark.long
@pytest.mark.parametrize("before", [[], [(0, "[busy] 4 timelines run already")]], ids=["at first", "after a wait"])
def test_a_server_that_breaks_after_longer_than_it_is_waited_for_is_tried_again(connect, server, before):
    server.signs_of_life, server.failures = 35, [*before, (0, grpc.StatusCode.CANCELLED)]
    assert indices(connect().timeline(VIDEO, timeout_seconds=3)) == list(range(10))


def test_a_server_that_was_never_there_is_reported_at_once(connect):
    with at_once(), pytest.raises(ServerUnavailable, match="no server answers at localhost:1"):
        list(connect(url="localhost:1").timeline(VIDEO, timeout_seconds=NEVER_SECONDS))


def test_an_error_comes_after_the_windows_so_far(connect, server):
    server.failures = [(2, "[crashed] this video crashes decoders")]
    windows, error = take_until(DecodeCrashed, connect().timeline(VIDEO), "crashes decoders")
    assert indices(windows) == list(range(6))
    assert (error.video, error.model) == ("<bytes>", "x3d_m")


def test_a_server_without_the_model_timeline_says_what_to_do(connect, server):
    server.models = ("decode", "x3d_m", "x3d_m_net")
    with pytest.raises(UnknownModel, match=r"no model 'timeline', which answers timelines\. `clipserve export`"):
        list(connect().timeline(VIDEO))


def test_an_unknown_model_lists_those_that_there_are(connect, server):
    server.failures = [(0, "timelines have no model 'nothing'; this server serves x3d_m")]
    with pytest.raises(UnknownModel, match=r"has no model 'nothing'; it has x3d_m$") as caught:
        list(connect("nothing").timeline(VIDEO))
    assert caught.value.models == ("x3d_m",)


def test_a_server_that_falls_silent_ends_the_timeline(connect, server):
    server.hold_after = 1
    windows, _ = take_until(DeadlineExceeded, connect().timeline(VIDEO, timeout_seconds=2), r"within 2 s")
    assert indices(windows) == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(index=record["index"] + 1), "windows range"),
        (lambda record: record.pop("start_seconds"), "start_seconds"),
        (lambda record: record.update(end_seconds=-1), "must end after its start"),
        (lambda record: record.update(top=[]), "at least one label"),
        (lambda record: record.update(top=[[0.1, 0, "a"], [0.2, 1, "b"]]), "best first"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_named(connect, server, change, message):
    server.change = change
    with pytest.raises(UnexpectedAnswer, match=message):
        list(connect().timeline(VIDEO))


def test_a_slow_caller_holds_the_server_back(connect, server):
    server.windows, server.per_response = 500, 1
    timeline = connect().timeline(VIDEO)
    for _ in range(3):
        next(timeline)
    time.sleep(0.5)
    assert server.sent <= 64, "the server may send 64 windows that nobody has acknowledged"
    assert len(list(timeline)) == 497
    assert server.most_ahead <= 64
    assert server.acknowledged == list(range(16, 16 + 16 * len(server.acknowledged), 16))
    assert server.acknowledged[-1] > 400


def test_closing_ends_the_work_of_the_server(connect, server):
    server.windows, server.hold_after = 500, 5
    timeline = connect().timeline(VIDEO)
    next(timeline)
    timeline.close()
    assert server.ended.wait(HANG_SECONDS)
    timeline.close()
    with pytest.raises(RequestCancelled, match="the timeline was closed"):
        next(timeline)  # to end the iteration would look like success


def test_leaving_a_context_ends_the_work_of_the_server(connect, server):
    server.windows, server.hold_after = 500, 5
    with connect().timeline(VIDEO) as timeline:
        next(timeline)
    assert server.ended.wait(HANG_SECONDS)


async def test_leaving_it_by_break_ends_the_work_of_the_server(server):
    server.windows, server.hold_after = 500, 5
    async with AsyncVideoClassifier("x3d_m", server.url) as classifier:
        async for _ in classifier.timeline(VIDEO):
            break
        assert await asyncio.to_thread(server.ended.wait, HANG_SECONDS)


async def test_leaving_a_run_in_asyncio_by_break_ends_every_timeline_and_the_bar(server):
    server.windows, server.hold_after = 500, 5
    before = threading.enumerate()
    async with AsyncVideoClassifier("x3d_m", server.url) as classifier:
        async for _ in classifier.timeline_many([b"0", b"1", b"2"], parallel=2, progress=True):
            break
        bars = [thread for thread in threading.enumerate() if thread not in before and "Refresh" in repr(thread)]
        assert await asyncio.to_thread(wait_for, lambda: not (server.running or any(bar.is_alive() for bar in bars)))


def test_closing_the_classifier_from_another_thread_ends_a_waiting_timeline(server):
    server.hold_after = 1
    classifier = VideoClassifier("x3d_m", server.url)
    timeline = classifier.timeline(VIDEO)
    windows = [next(timeline) for _ in range(3)]
    threading.Timer(0.2, classifier.close).start()
    with pytest.raises(RequestCancelled, match="the timeline was closed"):
        next(timeline)
    assert indices(windows) == [0, 1, 2]
    assert server.ended.wait(HANG_SECONDS)
    with pytest.raises(InvalidRequest, match="closed"):
        classifier.timeline(VIDEO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be a number of seconds from 0.01 to 86,400, got 0"),
        ({"step": float("nan")}, "step must be a number of seconds"),
        ({"window": "2"}, "window must be a number of seconds"),
        ({"first_window": -1}, "first_window must be a whole number from 0 to 2,147,483,647"),
        ({"views": 3}, "add sampling='clip'"),
        ({"windows": 3}, "unknown option: windows"),
    ],
)
def test_wrong_arguments_are_refused_at_once(connect, options, message):
    with pytest.raises(InvalidRequest, match=message):
        connect().timeline(VIDEO, **options)


def test_a_video_that_cannot_be_read_fails_before_anything_is_sent(connect, server):
    with pytest.raises(VideoNotReadable, match=r"nothing\.mp4"):
        list(connect().timeline("nothing.mp4"))
    with pytest.raises(EmptyVideo):
        list(connect().timeline(b""))
    assert server.requests == []


def collect(rows):
    """Indices of windows, and the last row, by video."""
    found = {}
    for row in rows:
        windows, _ = found.get(row.number, ([], None))
        found[row.number] = ([*windows, *([row.window.index] if row.window else [])], row)
    return found


def test_many_videos_give_windows_and_a_last_row_each(connect, server):
    server.windows_by_content = {b"0": 4, b"1": 25, b"2": 1}
    server.failures_by_content = {b"2": "[not-a-video] no container that is opened here"}
    rows = connect().timeline_many([b"0", b"1", b"2", "nothing.mp4"], parallel=2)
    found = collect(rows)
    assert [found[number][0] for number in range(4)] == [list(range(4)), list(range(25)), [0], []]
    assert found[0][1].is_complete
    assert found[1][1].facts.windows_total == 25
    assert isinstance(found[2][1].error, NotAVideo)
    assert isinstance(found[3][1].error, VideoNotReadable)
    assert (rows.summary.succeeded, rows.summary.failures) == (2, 2)
    assert server.most_running <= 2


def test_another_event_loop_may_close_an_unfinished_run(server):
    classifier = AsyncVideoClassifier("x3d_m", server.url)
    rows = classifier.timeline_many([b"0", b"1", b"2"], parallel=2)

    async def take() -> None:
        assert (await anext(rows)).window is not None

    with asyncio.Runner() as runner:
        runner.run(take())
        asyncio.run(classifier.close())
    with pytest.raises(InvalidRequest, match="closed"):
        asyncio.run(classifier.models())


def test_on_error_decides_about_failures(connect, server):
    server.failures_by_content = {b"1": "[not-a-video] no container"}
    assert 1 not in [row.number for row in connect().timeline_many([b"0", b"1"], on_error="drop") if not row.window]
    with pytest.raises(NotAVideo):
        list(connect().timeline_many([b"0", b"1"], on_error="raise"))


def test_a_busy_server_is_waited_for(connect, server):
    server.failures = [(0, "[busy] 4 timelines run already")] * 3
    found = collect(connect().timeline_many([b"0", b"1"]))
    assert [found[number][0] for number in range(2)] == [list(range(10))] * 2


def test_a_busy_server_gets_the_video_again_when_it_has_room(connect, server):
    server.failures = [(0, "[busy] 4 timelines run already")] * 3
    assert indices(connect().timeline(VIDEO)) == list(range(10))
    assert server.videos == [VIDEO, b"", b"", b"", VIDEO]


def test_closing_a_run_ends_every_timeline(connect, server):
    server.windows, server.hold_after = 500, 5
    with connect().timeline_many([b"0", b"1", b"2"], parallel=2) as rows:
        next(rows)
    with server.changed:
        assert server.changed.wait_for(lambda: not server.running, HANG_SECONDS)


def test_leaving_a_run_by_break_ends_every_timeline(server):
    server.windows, server.hold_after = 500, 5
    with VideoClassifier("x3d_m", server.url) as classifier:
        for _ in classifier.timeline_many([b"0", b"1", b"2"], parallel=2):
            break
        with server.changed:
            assert server.changed.wait_for(lambda: not server.running, HANG_SECONDS)


def test_a_source_that_fails_midway_ends_the_run_after_its_rows(connect):
    def read():
        yield b"0"
        raise InvalidRequest("the list ends here")

    taken, _ = take_until(InvalidRequest, connect().timeline_many(read()), "the list ends here")
    assert indices(row.window for row in taken if row.window) == list(range(10))


def test_of_two_servers_the_other_goes_on(connect, server):
    other = FakeTimelines()
    other.running_server = start_server(other)
    try:
        for one in (server, other):
            one.failures = [(2, BROKEN)]
        with at_once():
            windows = connect(url=f"{server.url},{other.url}").timeline(VIDEO, timeout_seconds=NEVER_SECONDS)
            assert indices(windows) == list(range(10))
        assert server.sent + other.sent == 10
        assert server.sent
        assert other.sent
    finally:
        other.running_server.stop(None).wait(HANG_SECONDS)


def test_the_memory_of_the_client_does_not_grow_with_the_video(connect, server):
    server.windows, server.per_response = 4000, 40
    timeline = connect().timeline(VIDEO)
    taken = iter(timeline)
    for _ in range(1000):
        next(taken)
    tracemalloc.start()
    for _ in range(200):
        next(taken)
    before, _ = tracemalloc.get_traced_memory()
    assert sum(1 for _ in taken) == 2800
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 300_000, "2800 windows of 4 classes take more than 2 MB"


def test_a_bar_says_that_the_first_window_is_waited_for(server):
    server.hold_after = 0
    classifier = f"import clipserve; classifier = clipserve.VideoClassifier('x3d_m', {server.url!r})"
    for call in ("list(classifier.timeline(b'video'))", "list(classifier.timeline_many([b'video']))"):
        read_terminal([sys.executable, "-c", f"{classifier}; {call}"], until="waiting for the first window")


def read_terminal(command, *, until):
    """Wait until a program has written these words to a stderr that is a terminal, and kill it."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}, stderr=theirs)
    os.close(theirs)
    said = ""
    try:
        while until not in said:
            said += os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        process.kill()
        process.wait()
