"""Every way a call can fail ends in one error of the tree, the same for sync and async."""

import asyncio
import os
import pickle
import socket
import threading
import time

import grpc
import pytest

import clipserve
from clipserve import errors
from clipserve.connection import Connection
from clipserve.error_mapping import CODE_ERRORS, STATUS_ERRORS
from clipserve.protocol import Sleep
from clipserve.transport import AsyncTransport, Transport
from tests.client.fake_triton import FakeTriton
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once, when

VIDEO = b"video"

CODES = {
    "not-a-video": errors.NotAVideo,
    "no-video-stream": errors.NoVideoStream,
    "unsupported-codec": errors.UnsupportedCodec,
    "encrypted": errors.EncryptedVideo,
    "truncated": errors.TruncatedVideo,
    "too-large": errors.VideoTooLarge,
    "too-long": errors.VideoTooLong,
    "timed-out": errors.DecodeTimedOut,
    "crashed": errors.DecodeCrashed,
    "out-of-memory": errors.DecodeOutOfMemory,
    "failed": errors.DecodeFailed,
    "busy": errors.ServerBusy,
    "invalid-request": errors.InvalidRequest,
}

STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]


def all_errors(kind=errors.ClipserveError):
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in all_errors(child))]


def test_every_grpc_status_is_mapped():
    unmapped = set(grpc.StatusCode) - set(STATUS_ERRORS)
    assert not unmapped, f"add {unmapped} to STATUS_ERRORS"


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.name)
def test_every_status_a_server_sends_becomes_its_error(connect, triton, status):
    triton.failure = (status, "something about the request")
    with pytest.raises(errors.ClipserveError) as caught:
        connect().classify(VIDEO)
    # The server is there and its model ready: then "unavailable" means that it refused.
    busy = status is grpc.StatusCode.UNAVAILABLE
    assert type(caught.value) is (errors.ServerBusy if busy else STATUS_ERRORS[status])
    assert (caught.value.model, caught.value.video) == ("x3d_m", "<bytes>")
    assert caught.value.__cause__.status() == str(status)
    assert "something about the request" in str(caught.value)


def test_every_code_of_the_server_is_known():
    assert CODE_ERRORS == CODES


@pytest.mark.parametrize("prefix", ["", "in ensemble 'x3d_m', [request id: <id_unknown>] "])
@pytest.mark.parametrize("code", CODES)
def test_a_code_in_brackets_decides_and_triton_s_own_words_go(connect, triton, code, prefix):
    triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, f"{prefix}[{code}] because [so] it is.")
    with pytest.raises(CODES[code]) as caught:
        connect().classify(VIDEO)
    assert caught.value.code == code
    assert "because [so] it is" in str(caught.value)
    assert f"[{code}]" not in str(caught.value)
    assert "ensemble" not in str(caught.value)


def test_a_pipe_that_is_no_video_may_be_a_list_that_needs_a_suffix(connect, triton, tmp_path):
    triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")
    reading, writing = os.pipe()
    os.write(writing, b"path\na.mp4\n")  # as a shell does for <(cat list.csv)
    os.close(writing)
    (row,) = connect().classify_many(f"/dev/fd/{reading}")
    os.close(reading)
    assert triton.videos == [b"path\na.mp4\n"]
    assert "a list needs a name that ends in .csv or .jsonl" in str(row.error)
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    for source in (tmp_path / "clip.mp4", VIDEO):
        with pytest.raises(errors.NotAVideo) as caught:
            connect().classify(source)
        assert "list" not in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "LABELS.JSONL", "labels.ndjson"])
def test_a_list_that_is_given_as_a_video_belongs_to_classify_many(connect, triton, tmp_path, name):
    triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")
    (tmp_path / name).write_text("path\na.mp4\n")
    with pytest.raises(errors.NotAVideo, match="If it is a list of videos: give it to classify_many or timeline_many"):
        connect().classify(tmp_path / name)


def test_a_folder_that_is_given_as_a_video_belongs_to_classify_many(connect, triton, tmp_path):
    for call in (connect().classify, lambda video: list(connect().timeline(video))):
        with pytest.raises(errors.VideoNotReadable, match="Give a folder to classify_many or timeline_many"):
            call(tmp_path)
    assert triton.videos == []


def test_a_code_counts_under_any_status(connect, triton):
    triton.failure = (grpc.StatusCode.INTERNAL, "[crashed] the worker died")
    with pytest.raises(errors.DecodeCrashed):
        connect().classify(VIDEO)


def test_an_unknown_code_changes_nothing(connect, triton):
    triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "[from-the-future] because")
    with pytest.raises(errors.InvalidRequest, match="from-the-future"):
        connect().classify(VIDEO)


def test_only_what_may_succeed_later_is_retryable():
    retryable = {kind.code for kind in all_errors() if kind.retryable}
    assert retryable == {"unavailable", "busy", "model-not-ready", "deadline-exceeded"}


def test_codes_are_unique_and_each_is_in_the_drawn_tree():
    kinds = all_errors()
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.__name__ in errors.__doc__
        if not kind.__subclasses__():
            assert f" {kind.code} " in f"{errors.__doc__} ".replace("\n", " ")


def test_every_error_is_a_public_name():
    assert {kind.__name__ for kind in all_errors()} <= set(clipserve.__all__)


def test_an_error_can_be_pickled():
    error = errors.UnknownModel("no such model", model="x3d_q", video="clip.mp4")
    error.models = ("x3d_m",)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_an_unknown_model_lists_those_there_are(connect):
    with pytest.raises(errors.UnknownModel, match=r"'x3d_q'.*mvit_base_16x4, x3d_m") as caught:
        connect("x3d_q").classify(VIDEO)
    assert caught.value.models == ("mvit_base_16x4", "x3d_m")


def test_an_unknown_model_is_reported_even_if_the_server_will_not_list_its_models(connect, triton):
    triton.failure = (grpc.StatusCode.NOT_FOUND, "no")
    triton.closed_to = "RepositoryIndex"
    with pytest.raises(errors.UnknownModel) as caught:
        connect("x3d_q").classify(VIDEO)
    assert caught.value.models is None


def test_a_model_that_failed_to_load_is_not_ready_rather_than_unknown(connect, triton):
    triton.models["x3d_m"].ready = False
    triton.models["x3d_m"].reason = "Internal: no model.onnx\nAt:\n  model.py(3)"
    triton.failure = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x3d_m' is not found")
    with pytest.raises(errors.ModelNotReady, match=r"\(Internal: no model\.onnx\)") as caught:
        connect().classify(VIDEO)
    assert caught.value.video == "<bytes>"


def test_a_model_that_was_exported_after_the_start_is_loaded_by_the_command_in_the_message(connect, triton):
    triton.models["x3d_m"].ready = False
    triton.failure = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x3d_m' is not found")
    with pytest.raises(errors.ModelNotReady, match=f"clipserve versions x3d_m --reload {triton.url}"):
        connect().classify(VIDEO)


@pytest.mark.parametrize("index", ["refused", "answered, when the model is back"])
def test_a_model_that_is_known_but_not_loaded_is_not_ready_whatever_the_index_says(connect, triton, index):
    triton.failure = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x3d_m' has no available versions")
    if index == "refused":
        triton.closed_to = "RepositoryIndex"
    with pytest.raises(errors.ModelNotReady, match=r"no available versions.*wait_until_ready"):
        connect().classify(VIDEO)


def test_a_full_queue_is_busy_and_not_an_absent_server(connect, triton):
    triton.failure = (
        grpc.StatusCode.UNAVAILABLE,
        "in ensemble 'x3d_m', Exceeds maximum queue size",
    )
    with pytest.raises(errors.ServerBusy, match="Exceeds maximum queue size"):
        connect().classify(VIDEO)


def test_a_server_without_room_in_shared_memory_is_busy(connect, triton):
    words = "in ensemble 'x3d_m', Failed to increase the shared memory pool size for key 'k' to 1048576 bytes."
    triton.failure = (grpc.StatusCode.INTERNAL, words)
    with pytest.raises(errors.ServerBusy, match="shared memory"):
        connect().classify(VIDEO)


@pytest.mark.parametrize("name", ["", "'x3d_m_net_0_0' "])
def test_a_server_whose_processes_get_no_time_is_busy(connect, triton, name):
    triton.failure = (grpc.StatusCode.INTERNAL, f"in ensemble 'x3d_m', Stub process {name}is not healthy.")
    with pytest.raises(errors.ServerBusy, match=f"Stub process {name}is not healthy"):
        connect().classify(VIDEO)


def test_a_server_that_says_busy_gets_no_follow_up(connect, triton):
    triton.failure = (grpc.StatusCode.UNAVAILABLE, "[busy] 32 videos are waiting")
    with pytest.raises(errors.ServerBusy):
        connect().classify(VIDEO)
    assert [method for method, _ in triton.metadata] == ["ModelInfer"]


def test_a_known_model_that_is_not_loaded_is_not_ready(connect, triton):
    triton.models["x3d_m"].ready = False
    with pytest.raises(errors.ModelNotReady, match="no available versions"):
        connect().classify(VIDEO)


def test_a_server_that_is_down_is_reported_at_once_with_its_address(connect, free_port):
    url = f"localhost:{free_port}"
    for call in ("classify", "models"):
        classifier = connect(url=url, timeout_seconds=NEVER_SECONDS)
        with at_once(), pytest.raises(errors.ServerUnavailable) as caught:
            classifier.classify(VIDEO) if call == "classify" else classifier.models()
        assert url in str(caught.value)
        assert "clipserve serve" in str(caught.value)


def test_a_server_that_comes_up_is_found_by_the_same_classifier(connect, start, free_port):
    classifier = connect(url=f"localhost:{free_port}")
    with pytest.raises(errors.ServerUnavailable):
        classifier.classify(VIDEO)
    start(FakeTriton(), port=free_port)
    classifier.wait_until_ready(timeout_seconds=HANG_SECONDS)
    assert classifier.classify(VIDEO).top.label == "archery"


@pytest.mark.parametrize("where", ["call", "classifier"])
def test_a_deadline_ends_the_wait_for_an_answer(connect, triton, where):
    triton.hold = True
    classifier = connect(timeout_seconds=0.2 if where == "classifier" else NEVER_SECONDS)
    with at_once(), pytest.raises(errors.DeadlineExceeded, match=r"within 0\.2 s"):
        classifier.classify(VIDEO, timeout_seconds=0.2 if where == "call" else None)


def test_several_threads_may_share_a_classifier(triton):
    answers = []
    with clipserve.VideoClassifier("x3d_m", triton.url) as classifier:

        def classify(number):
            answers.append(classifier.classify(b"video %d" % number).top.label)

        threads = [threading.Thread(target=classify, args=[number]) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["archery"] * 16
    assert sorted(triton.videos) == sorted(b"video %d" % number for number in range(16))


async def test_a_cancelled_task_cancels_its_call(triton):
    triton.hold = True
    async with clipserve.AsyncVideoClassifier("x3d_m", triton.url) as classifier:
        task = asyncio.create_task(classifier.classify(VIDEO))
        while not triton.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_calls_of_the_async_classifier_overlap(triton):
    triton.hold = True
    async with clipserve.AsyncVideoClassifier("x3d_m", triton.url) as classifier:
        tasks = [asyncio.create_task(classifier.classify(VIDEO)) for _ in range(3)]
        while len(triton.requests) < 3:
            await asyncio.sleep(0.01)
        triton.release.set()
        assert [(await task).top.label for task in tasks] == ["archery"] * 3


def test_closing_ends_calls_in_flight(triton):
    triton.hold = True
    classifier = clipserve.VideoClassifier("x3d_m", triton.url)
    caught = []

    def classify():
        try:
            classifier.classify(VIDEO)
        except errors.ClipserveError as error:
            caught.append(error)

    thread = threading.Thread(target=classify)
    thread.start()
    while not triton.requests:
        time.sleep(0.01)
    classifier.close()
    thread.join(HANG_SECONDS)
    (error,) = caught
    assert (type(error), str(error), error.model) == (errors.RequestCancelled, "the classifier was closed", "x3d_m")


async def test_closing_ends_calls_in_flight_without_cancelling_their_task(triton):
    triton.hold = True
    classifier = clipserve.AsyncVideoClassifier("x3d_m", triton.url)
    task = asyncio.create_task(classifier.classify(VIDEO))
    while not triton.requests:
        await asyncio.sleep(0.01)
    await classifier.close()
    with pytest.raises(errors.RequestCancelled, match="the classifier was closed") as caught:
        await task
    assert caught.value.model == "x3d_m"


def test_a_wait_ends_when_its_classifier_is_closed(triton):
    triton.models["decode"].ready = False
    classifier = clipserve.VideoClassifier("x3d_m", triton.url)
    when(lambda: triton.times_asked("ModelReady"), classifier.close)
    with at_once(), pytest.raises(errors.RequestCancelled, match="the classifier was closed"):
        classifier.wait_until_ready(timeout_seconds=NEVER_SECONDS)


async def test_a_wait_ends_when_its_async_classifier_is_closed(triton):
    triton.models["decode"].ready = False
    classifier = clipserve.AsyncVideoClassifier("x3d_m", triton.url)
    task = asyncio.create_task(classifier.wait_until_ready(timeout_seconds=NEVER_SECONDS))
    while not triton.times_asked("ModelReady"):
        await asyncio.sleep(0.01)
    await classifier.close()
    with at_once(), pytest.raises(errors.RequestCancelled, match="the classifier was closed"):
        await task


def sleep_for_ever():
    """A protocol between two calls."""
    yield Sleep(NEVER_SECONDS)


def test_closing_ends_a_sleep_between_two_calls_at_once(triton):
    transport = Transport(Connection("x3d_m", triton.url))
    threading.Timer(0.05, transport.close).start()
    with at_once(), pytest.raises(errors.RequestCancelled, match="the classifier was closed"):
        transport.run(sleep_for_ever())


async def test_closing_in_any_loop_ends_an_async_sleep_at_once(triton):
    for close_elsewhere in (False, True):
        transport = AsyncTransport(Connection("x3d_m", triton.url))
        task = asyncio.create_task(transport.run(sleep_for_ever()))
        await asyncio.sleep(0.05)
        await (asyncio.to_thread(asyncio.run, transport.close()) if close_elsewhere else transport.close())
        with at_once(), pytest.raises(errors.RequestCancelled, match="the classifier was closed"):
            await task


async def test_an_async_sleep_that_nobody_ends_lasts_as_long_as_it_should(triton):
    def sleep_briefly():
        yield Sleep(0.05)
        return "done"

    start = time.monotonic()
    assert await AsyncTransport(Connection("x3d_m", triton.url)).run(sleep_briefly()) == "done"
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize("kind", [clipserve.VideoClassifier, clipserve.AsyncVideoClassifier])
def test_closing_ends_the_download_of_a_video(triton, kind):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/clip.mp4"
        classifier = kind("x3d_m", triton.url, download_limits=clipserve.DownloadLimits(seconds=NEVER_SECONDS))

        def close():
            # Held until the classifier is closed: a connection that is dropped here would end the download first.
            connection, _ = silent.accept()
            result = classifier.close()
            if result is not None:
                asyncio.run(result)
            connection.close()

        async def classify():
            await classifier.classify(address)

        threading.Thread(target=close, daemon=True).start()
        with at_once(), pytest.raises(errors.RequestCancelled, match="the classifier was closed"):
            classifier.classify(address) if kind is clipserve.VideoClassifier else asyncio.run(classify())
    assert not triton.metadata


def test_a_call_that_begins_while_its_classifier_is_closed_ends_with_one_of_two_errors(triton):
    for _ in range(50):
        classifier = clipserve.VideoClassifier("x3d_m", triton.url)
        closing = threading.Thread(target=classifier.close)
        closing.start()
        with pytest.raises((errors.RequestCancelled, errors.InvalidRequest), match=r"classifier (was|is) closed"):
            list(iter(lambda classifier=classifier: classifier.classify(VIDEO), None))
        closing.join()
