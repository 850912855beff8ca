"""Windows from a process that may die, hang or take too much memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clip_decode import Geometry, Sampling
from clip_decode.errors import Busy, Crashed, Failed, InvalidRequest, NotAVideo, OutOfMemory, TimedOut
from clip_decode.limits import Limits
from clip_decode.window_engine import decode_windows
from clip_decode.windows import WindowLimits, Windows
from decode_pool.settings import PoolSettings
from decode_pool.video_memory import VideoMemory, map_video
from decode_pool.window_messages import WindowJob
from decode_pool.window_stream import WindowStream
from tests.decode.synthesis import Clip
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once, wait_for

GEOMETRY = Geometry(16, 1, 112, 112)  # 588 KiB a window: more than a socket holds, so the worker waits.
WINDOWS = Windows(1, 0.5)


def make_job(video: bytes, windows: Windows = WINDOWS) -> WindowJob:
    return WindowJob(VideoMemory(video), GEOMETRY, windows, Sampling(), WindowLimits())


def start(video: bytes, *, settings: PoolSettings = PoolSettings(), program: list[str] | None = None) -> WindowStream:  # noqa: B008
    return WindowStream(make_job(video), settings, Limits(), program=program or ())


@pytest.fixture(scope="module")
def video() -> bytes:
    return Clip(frames=240, gop=24, width=192, height=128).make()


def test_windows_arrive_as_they_are_decoded(video: bytes) -> None:
    expected = list(decode_windows(video, GEOMETRY, WINDOWS))
    received = list(start(video))
    assert [window.window.span for window in received] == [window.window.span for window in expected]
    for one, other in zip(received, expected, strict=True):
        assert (one.clips == other.clips).all()
        assert (one.window.frame_numbers == other.window.frame_numbers).all()
        assert (one.method, one.video.codec, one.video.windows) == (other.method, "h264", 16)


def test_a_worker_that_is_killed_costs_no_window(video: bytes) -> None:
    stream = start(video)
    numbers = []
    killed = []
    for window in stream:
        numbers.append(window.window.span.number)
        if numbers[-1] in (3, 4, 9):
            killed.append(stream.pid)
            os.kill(stream.pid, signal.SIGKILL)  # type: ignore[arg-type]
    assert numbers == list(range(16))
    assert len(set(killed)) == 3


def test_two_workers_that_die_as_they_start_cost_no_window(video: bytes, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "with open(sys.argv[1], 'a') as starts:\n"
        "    starts.write('.')\n"
        "if os.path.getsize(sys.argv[1]) < 3:\n"
        "    os.kill(os.getpid(), 9)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'decode_pool.window_worker', *sys.argv[2:]])\n"
    )
    stream = start(video, program=[sys.executable, "-c", code, str(tmp_path / "starts")])
    assert [window.window.span.number for window in stream] == list(range(16))


def program(code: str) -> list[str]:
    """A worker that runs this code in place of decoding, after it is ready."""
    ready = (
        "import sys, os, time, signal\n"
        "from multiprocessing.connection import Connection\n"
        "from decode_pool import window_messages as messages\n"
        "connection = Connection(int(sys.argv[1]))\n"
        "connection.send_bytes(b'ready')\n"
        "job = messages.receive_window_job(connection)\n"
    )
    return [sys.executable, "-c", ready + code]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", Crashed),
        ("time.sleep(600)", TimedOut),
        ("data = bytearray(400 << 20)\nfor i in range(0, 400 << 20, 4096): data[i] = 1\ntime.sleep(600)", OutOfMemory),
        ("connection.send_bytes(b'no JSON')", Crashed),
        ("connection.send_bytes(b'[1]' * 1_000_000)", Crashed),
    ],
    ids=["segmentation fault", "hang", "memory", "nonsense", "endless header"],
)
def test_a_worker_that_goes_wrong_ends_with_a_typed_error(video: bytes, code: str, error: type[Exception]) -> None:
    # Only a hang may reach its limit of time, on a machine that gives a process no time for seconds as well.
    seconds = 1 if error is TimedOut else round(HANG_SECONDS)
    settings = PoolSettings(max_decode_seconds=seconds, max_worker_megabytes=100)
    with pytest.raises(error):
        list(start(video, settings=settings, program=program(code)))


def test_a_worker_that_does_not_start_is_busy(video: bytes) -> None:
    with pytest.raises(Busy, match="no decode worker can be started"):
        list(start(video, program=["/bin/false"]))


def test_a_worker_for_which_the_machine_has_no_room_is_busy(video: bytes) -> None:
    with pytest.raises(Busy, match=r"can be started at the moment \(No such file or directory\); try again") as caught:
        list(start(video, program=["/no/such/python"]))
    assert caught.value.retryable


# Triton's module is not here.
A_TIMELINE = """
import sys, threading
from types import SimpleNamespace
from unittest.mock import MagicMock
triton = sys.modules["triton_python_backend_utils"] = MagicMock()
from clip_decode import Geometry, Sampling
from clip_decode.errors import Busy
from clip_decode.limits import Limits
from clip_decode.windows import WindowLimits, Windows
from decode_pool.settings import PoolSettings
from decode_pool.video_memory import VideoMemory
from timeline_model.request import TimelineRequest
from timeline_model.timeline import Timeline

timeline = Timeline(
    TimelineRequest("motion", -1, Windows(1, 0.5), Sampling(), 1, False, "", 1),
    VideoMemory(b"video"),
    SimpleNamespace(served=SimpleNamespace(geometry=Geometry(16, 1, 112, 112), max_batch=1)),
    SimpleNamespace(process=PoolSettings(), limits=Limits(), window_limits=WindowLimits()),
    MagicMock(),
    MagicMock(),
    timeout_seconds=None,
    on_end=MagicMock(),
)
"""

# A thread with a stack of 16 TiB does not start.
WITHOUT_THREADS = f"""{A_TIMELINE}
threading.stack_size(1 << 44)
try:
    timeline.start()
except Busy:
    print("[busy] at the start")
timeline._run()  # as its thread would
print(triton.TritonError.call_args.args[0])
"""


def test_a_timeline_whose_threads_cannot_start_is_busy() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.stdout.splitlines() == [
        "[busy] at the start",
        "[busy] the server can start no thread for this timeline at the moment; try again later",
    ], done.stderr


SLOW_NETWORK = f"""{A_TIMELINE}
import time
from timeline_model.timeline import SIGN_OF_LIFE_SECONDS

timeline._sender.is_cancelled.return_value = False
clock = timeline._sent_at
time.monotonic = lambda: clock

def check(later):
    global clock
    clock += later
    timeline.check()
    print(len(timeline._sender.send.mock_calls))

check(0)
check(1.1 * SIGN_OF_LIFE_SECONDS)
check(0)
timeline.acknowledgements.record_sent(1)
check(1.1 * SIGN_OF_LIFE_SECONDS)
"""


def test_a_client_hears_each_second_of_a_timeline_that_it_does_not_hold_up() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW_NETWORK], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.stdout.split() == ["0", "1", "1", "1"], done.stderr


# Likewise. The network answers with the error that is given.
FAILING_NETWORK = """
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock
import numpy as np
triton = sys.modules["triton_python_backend_utils"] = MagicMock()
triton.InferenceRequest().exec().error().message.return_value = sys.argv[1]
from clip_decode.errors import DecodeError
from timeline_model.network import Network

network = Network(SimpleNamespace(network="motion_net", instances=1, max_batch=1), Path(), 50)
try:
    network.run([SimpleNamespace(clips=np.zeros(1))], ["SCORES"], -1)
except DecodeError as error:
    print(error.code, error.retryable)
"""


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Stub process 'motion_net_0_0' is not healthy.", "busy True"),
        ("Failed to increase the shared memory pool size for key 'k' to 1048576 bytes.", "busy True"),
        ("model.onnx: cannot allocate memory", "failed False"),
    ],
)
def test_a_network_that_gets_no_processor_or_memory_is_busy(message: str, code: str) -> None:
    command = [sys.executable, "-c", FAILING_NETWORK, message]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.stdout == f"{code}\n", done.stderr


def test_errors_of_the_video_are_those_of_the_decoder(video: bytes) -> None:
    with pytest.raises(NotAVideo):
        list(start(b"\x89PNG" * 100))
    late = WindowJob(VideoMemory(video), GEOMETRY, WINDOWS, Sampling(start_seconds=99), WindowLimits())
    with pytest.raises(InvalidRequest, match="video ends at"):
        list(WindowStream(late, PoolSettings(), Limits()))


def test_nothing_is_decoded_far_ahead_of_who_reads(video: bytes) -> None:
    stream = iter(start(video))
    first = next(stream)
    time.sleep(1.0)
    second = next(stream)
    third = next(stream)
    stream.close()  # type: ignore[attr-defined]
    # What the worker has decoded by the second and the third window: it waited in between.
    assert third.video.decoded_frames < 0.5 * third.video.frames
    assert first.video.decoded_frames <= second.video.decoded_frames


def test_close_ends_the_worker_at_once_from_any_thread(video: bytes) -> None:
    settings = PoolSettings(max_decode_seconds=round(NEVER_SECONDS))
    stream = start(video, program=program(f"time.sleep({NEVER_SECONDS})"), settings=settings)
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            list(stream)
        except BaseException as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert wait_for(lambda: stream.pid)
    pid = stream.pid
    with at_once():
        stream.close()
        reader.join()
    assert isinstance(outcome[0], Busy)
    assert not Path(f"/proc/{pid}").exists()


def test_a_defect_is_an_error_without_a_name_of_this_machine(video: bytes) -> None:
    code = (
        "from decode_pool.messages import send_error\n"
        "from clip_decode.errors import Failed\n"
        "send_error(connection, Failed('a defect'), traceback='the traceback')\n"
    )
    with pytest.raises(Failed, match="a defect") as caught:
        list(start(video, program=program(code)))
    assert caught.value.__notes__ == ["the traceback"]


def test_the_memory_of_a_video_cannot_be_changed() -> None:
    memory = VideoMemory(b"0123456789")
    assert bytes(map_video(os.dup(memory.descriptor), 10)) == b"0123456789"
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(memory.descriptor, b"x", 0)
    memory.close()
    memory.close()
