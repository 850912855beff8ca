"""Workers may die, hang or swell; one request is lost with each, and nobody else notices."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import psutil
import pytest

from clip_decode.engine import decode_clips
from clip_decode.errors import Busy, Crashed, Failed, NotAVideo, OutOfMemory, TimedOut
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling
from clipserve_host.cores import available_cores as cores_of_server
from decode_pool import process, slots
from decode_pool.messages import READY, Decoded, Job, receive_job
from decode_pool.pool import DecodePool
from decode_pool.process import WorkerNotStarted, WorkerProcess
from decode_pool.settings import PoolSettings, available_cores
from decode_pool.standard_error import StandardError
from tests.decode.synthesis import Clip
from tests.watching import HANG_SECONDS, wait_for

GEOMETRIES = {"CLIP": Geometry(8, 8, 64, 64)}


@pytest.fixture(scope="module")
def video() -> bytes:
    return Clip(frames=60).make()


@pytest.fixture
def log() -> list[str]:
    """The lines that pools have logged."""
    return []


@pytest.fixture
def start(log: list[str]) -> Iterator[Callable[..., DecodePool]]:
    pools: list[DecodePool] = []

    def start(program: Sequence[str] = (), *, wait: bool = True, **settings: int) -> DecodePool:
        pools.append(DecodePool(PoolSettings(**{"workers": 1, **settings}), Limits(), program=program, log=log.append))
        if wait:
            pools[-1].wait_until_ready(HANG_SECONDS)
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def run(code: str) -> list[str]:
    """A program for workers: this code, then the worker's own, whose module is `worker` to it."""
    return [sys.executable, "-X", "faulthandler", "-c", f"from decode_pool import worker\n{code}\nworker.main()"]


def before_decoding(statement: str) -> list[str]:
    """A program for workers that does something with every `video` before it decodes it."""
    return run(f"""
import ctypes, os, signal
def decode_clips(video, *others):
    {statement}
    return genuine(video, *others)
genuine, worker.decode_clips = worker.decode_clips, decode_clips
""")


PAUSE = before_decoding("if video == b'pause': os.kill(os.getpid(), signal.SIGSTOP)")
DEFECT = before_decoding("if video == b'defect': raise LookupError('a secret of this machine')")
CRASH = before_decoding("ctypes.string_at(0)")


def job(video: bytes, sampling: Sampling | None = None) -> Job:
    return Job(video, GEOMETRIES, sampling or Sampling())


def pause_at_work(pool: DecodePool) -> tuple[int, Future[Decoded]]:
    """Have the only worker, which runs PAUSE, stop in the middle of a video."""
    (pid,) = pool.pids
    future = pool.submit(job(b"pause"))
    assert wait_for(lambda: is_stopped(pid))
    return pid, future


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it, or it has ended by now: after max_decode_seconds the pool kills it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return True


def pause(pool: DecodePool) -> int:
    """Stop the only worker: to the pool it hangs."""
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_workers_leave_the_cores_to_what_comes_after_decoding(start: Callable[..., DecodePool]) -> None:
    (pid,) = start().pids
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


def test_the_time_of_a_job_includes_its_decoding(start: Callable[..., DecodePool], video: bytes) -> None:
    decoded = start().submit(Job(video, GEOMETRIES, Sampling())).result(HANG_SECONDS)
    assert decoded.seconds >= json.loads(decoded.report)["decode_milliseconds"] / 1000 > 0.001


def test_the_pool_gives_what_the_engine_gives(start: Callable[..., DecodePool], video: bytes) -> None:
    sampling = Sampling(policy="clip", views=2, crops=3, quality="reference")
    expected, _ = decode_clips(video, GEOMETRIES, sampling, Limits())
    decoded = start().submit(job(video, sampling)).result(HANG_SECONDS)
    np.testing.assert_array_equal(decoded.clips["CLIP"], expected["CLIP"])
    assert '"codec":"h264"' in decoded.report


def test_an_error_of_the_engine_keeps_its_class_and_the_worker(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    before = pool.pids
    with pytest.raises(NotAVideo, match="no format known"):
        pool.submit(job(b"no video" * 100)).result(HANG_SECONDS)
    assert pool.submit(job(video)).result(HANG_SECONDS)
    assert pool.pids == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_dies_at_work_costs_its_request_and_is_replaced(
    start: Callable[..., DecodePool], video: bytes, number: signal.Signals
) -> None:
    pool = start(PAUSE)
    pid, lost = pause_at_work(pool)
    kept = pool.submit(job(video))
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(Crashed, match=number.name):
        lost.result(HANG_SECONDS)
    assert wait_for(lambda: pool.pids and pool.pids != [pid])
    assert kept.result(HANG_SECONDS).clips["CLIP"].shape == (1, 8, 64, 64, 3)


def test_an_exception_that_nobody_expected_is_an_answer_and_the_worker_lives_on(
    start: Callable[..., DecodePool], video: bytes, log: list[str]
) -> None:
    pool = start(DEFECT)
    before = pool.pids
    for _ in range(2):
        with pytest.raises(Failed, match="LookupError") as raised:
            pool.submit(job(b"defect")).result(HANG_SECONDS)
        assert "secret" not in raised.value.message, "the client is told no more than the kind"
    assert pool.submit(job(video)).result(HANG_SECONDS)
    assert pool.pids == before
    assert "a video of 6 bytes" in log[0]
    assert "    LookupError: a secret of this machine" in log
    assert log.count("    Traceback (most recent call last):") == 1, "a traceback that comes again is not repeated"
    assert log[-1] == "    as logged before: LookupError: a secret of this machine"


def test_an_exception_while_a_job_is_sent_costs_no_worker_slot(
    start: Callable[..., DecodePool], video: bytes, log: list[str]
) -> None:
    pool = start()
    with pytest.raises(Failed, match="TypeError"):
        pool.submit(job("text, no bytes")).result(HANG_SECONDS)  # type: ignore[arg-type]
    with pytest.raises(Failed, match="ZeroDivisionError"):
        pool.submit(job(video), cancelled=lambda: 1 // 0 > 0).result(HANG_SECONDS)
    assert pool.submit(job(video)).result(HANG_SECONDS)
    assert "    ZeroDivisionError: integer division or modulo by zero" in log


def test_the_error_output_of_a_worker_that_crashed_is_logged(
    start: Callable[..., DecodePool], video: bytes, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPSERVE_LOG", "/var/log/triton.log")
    with pytest.raises(Crashed, match=r"SIGSEGV.*/var/log/triton\.log"):
        start(CRASH).submit(job(video)).result(HANG_SECONDS)
    assert "[crashed]" in log[0]
    assert any("Fatal Python error: Segmentation fault" in line for line in log)
    assert any("in string_at" in line for line in log)


def test_what_a_worker_writes_holds_up_nobody(start: Callable[..., DecodePool], video: bytes) -> None:
    """More than a pipe holds, on both streams: to a video that makes a library talk."""
    talkative = """
    for stream in (1, 2) * 100:
        try:
            os.write(stream, bytes(10_000))
        except BlockingIOError:
            pass
"""
    assert start(before_decoding(talkative)).submit(job(video)).result(HANG_SECONDS)


def test_workers_that_cannot_start_are_reported_with_their_error_output(
    start: Callable[..., DecodePool], log: list[str]
) -> None:
    pool = start([sys.executable, "-c", "import a_module_of_nobody"], wait=False)
    with pytest.raises(WorkerNotStarted, match=r"exit status 1.*ModuleNotFoundError: No module named 'a_module_of_"):
        pool.wait_until_ready(HANG_SECONDS)
    assert "    Traceback (most recent call last):" in log
    pool = start(["/nowhere/python"], wait=False)
    with pytest.raises(WorkerNotStarted, match=r"No such file or directory: '/nowhere/python'"):
        pool.wait_until_ready(HANG_SECONDS)


def test_when_no_worker_can_be_started_any_more_videos_are_refused_until_one_can(
    start: Callable[..., DecodePool], video: bytes, log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "START_GRACE_SECONDS", 1.0)
    broken = tmp_path / "broken"
    code = f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit('out of order')"
    pool = start(run(code))
    broken.touch()
    os.kill(pool.pids[0], signal.SIGKILL)
    for _ in range(20):
        with pytest.raises(Busy, match="no decode worker can be started") as raised:
            pool.submit(job(video)).result(HANG_SECONDS)
    assert raised.value.retryable
    starts = [line for line in log if "could not start" in line]
    pauses = [float(line.partition("the next try is in ")[2].partition(" s")[0]) for line in starts]
    assert pauses == sorted(set(pauses)), "each try waits longer than the one before"
    assert "out of order" in starts[0]
    broken.unlink()
    assert wait_for(lambda: pool.pids)
    assert pool.submit(job(video)).result(HANG_SECONDS)


# Fewer descriptors are left each time, down to none. Prints how many are open after each failed start.
FEW_DESCRIPTORS = """
import os, resource
from clip_decode.limits import Limits
from decode_pool.process import start_workers
from decode_pool.settings import PoolSettings

def count():
    return len(os.listdir("/proc/self/fd"))

before, (_, most) = count(), resource.getrlimit(resource.RLIMIT_NOFILE)
for left in range(10, -1, -1):
    resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + left, most))
    try:
        start_workers(["/no/such/program"], PoolSettings(), Limits(), 2)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        print(count() - before, type(error).__name__)
"""


def test_a_start_that_fails_leaves_no_descriptor_open() -> None:
    # A socket that is closed by the garbage collector is a warning.
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", FEW_DESCRIPTORS], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 11, done.stderr
    assert lines[-1] == "0 OSError"
    assert {line.split()[0] for line in lines} == {"0"}
    assert "ResourceWarning" not in done.stderr


def test_a_worker_that_dies_idle_is_replaced_and_nobody_notices(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert pool.submit(job(video)).result(HANG_SECONDS)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: pool.pids and pool.pids != [pid])


def test_a_worker_that_hangs_is_killed_when_its_time_is_up(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(PAUSE, max_decode_seconds=4)  # the other video must not take as long on a busy machine
    pid, hanging = pause_at_work(pool)
    with pytest.raises(TimedOut, match="more than 4 seconds"):
        hanging.result(HANG_SECONDS)
    assert not Path(f"/proc/{pid}").exists()
    assert pool.submit(job(video)).result(HANG_SECONDS)


class Unkillable(subprocess.Popen[bytes]):
    """A process that hangs in a driver of the kernel does not end, whatever signal comes."""

    def kill(self) -> None:
        pass


def test_a_worker_that_does_not_end_holds_up_nobody(video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILL_SECONDS", 0.2)
    ours, theirs = Pipe()
    stderr = StandardError()
    with stderr.writable() as output:
        hanging = Unkillable([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=output)
    worker = WorkerProcess(hanging, ours, stderr, PoolSettings(max_decode_seconds=1), "python")
    try:
        theirs.send_bytes(READY)
        worker.wait_until_ready()
        with ThreadPoolExecutor(1) as threads:
            taken = threads.submit(receive_job, theirs)
            with pytest.raises(TimedOut):
                worker.decode(Job(video, GEOMETRIES, Sampling()))
            assert taken.result(30).video == video
        assert not worker.is_alive
    finally:
        subprocess.Popen.kill(hanging)
        hanging.communicate()
        theirs.close()


def test_a_video_that_takes_too_much_memory_is_told_so_and_the_next_is_served(
    start: Callable[..., DecodePool], video: bytes
) -> None:
    pool = start(max_worker_megabytes=24)
    large = Clip(frames=8, width=2560, height=1440, options={"preset": "ultrafast"}).make()
    with pytest.raises(OutOfMemory, match="more than 24 MiB"):
        pool.submit(job(large)).result(HANG_SECONDS)
    assert pool.submit(job(video)).result(HANG_SECONDS)


def test_a_full_queue_is_busy_which_is_worth_trying_again(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(max_waiting=1)
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running)
    second = pool.submit(job(video))
    with pytest.raises(Busy, match="1 videos wait to be decoded already") as raised:
        pool.submit(job(video))
    assert raised.value.retryable
    os.kill(pid, signal.SIGCONT)
    assert first.result(HANG_SECONDS)
    assert second.result(HANG_SECONDS)
    assert pool.submit(job(video)).result(HANG_SECONDS)


def test_videos_that_wait_are_bounded_in_bytes_too(start: Callable[..., DecodePool], video: bytes) -> None:
    """Sixty-four of the largest that may come would be 32 GiB."""
    pool = start(max_waiting_megabytes=1)
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running)
    large = video + bytes(3 * 2**20)
    alone = pool.submit(job(large))
    with pytest.raises(Busy, match="more than 1 MiB") as raised:
        pool.submit(job(video))
    assert raised.value.retryable
    os.kill(pid, signal.SIGCONT)
    assert first.result(HANG_SECONDS)
    assert alone.result(HANG_SECONDS)
    assert pool.submit(job(video)).result(HANG_SECONDS)


def test_a_request_that_was_cancelled_is_not_decoded(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running)
    abandoned = pool.submit(job(b"never looked at"), cancelled=lambda: True)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(CancelledError):
        abandoned.result(HANG_SECONDS)
    assert first.result(HANG_SECONDS)


def test_closing_ends_every_worker_and_forgets_what_waits(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(workers=2)
    pids = pool.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    futures = [pool.submit(job(video)) for _ in range(4)]
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert all(future.done() for future in futures)


def test_under_kill_9_every_other_request_is_answered_correctly(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(workers=2, max_waiting=1000)
    expected, _ = decode_clips(video, GEOMETRIES, Sampling(), Limits())
    choice, kills = random.Random(0), 8
    futures: list[Future[Decoded]] = []
    for _ in range(kills):
        # Workers that are idle, at work, or just starting.
        futures += [pool.submit(job(video)) for _ in range(choice.randrange(20))]
        for future in futures[:: choice.randrange(1, 9)]:
            future.exception(HANG_SECONDS)
        while not (pids := pool.pids):  # both are being replaced
            time.sleep(0.01)
        os.kill(choice.choice(pids), signal.SIGKILL)
    failures = [future.exception(HANG_SECONDS) for future in futures]
    lost = [failure for failure in failures if failure is not None]
    assert len(lost) <= kills
    assert all(isinstance(failure, Crashed) for failure in lost)
    for future, failure in zip(futures, failures, strict=True):
        if failure is None:
            np.testing.assert_array_equal(future.result().clips["CLIP"], expected["CLIP"])


def test_a_worker_may_not_write_files(start: Callable[..., DecodePool]) -> None:
    (pid,) = start().pids
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name in ("Max file size", "Max core file size"):
        assert [line.split()[len(name.split())] for line in limits.splitlines() if line.startswith(name)] == ["0"]


QUOTAS = {
    "none at all": ({}, None),
    "one and a half": ({"cpu.max": "150000 100000"}, 2),
    "a half": ({"cpu.max": "50000 100000"}, 1),
    "unlimited": ({"cpu.max": "max 100000"}, None),
    "one and a half, v1": ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "a half, v1": ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    "unlimited, v1": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
}


@pytest.mark.parametrize(("files", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_the_pool_sizes_itself_to_the_cores_it_may_use(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    mine = len(os.sched_getaffinity(0))
    # The servers, which size their shared memory for as many workers, cannot import this and count by themselves.
    assert available_cores(tmp_path) == cores_of_server(tmp_path) == min(mine, cores or mine)
    assert PoolSettings(workers=0).worker_count() >= 1
    assert PoolSettings(workers=3).worker_count() == 3


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(16, 0, 16), (16, 3, 10), (4, 3, 2), (1, 3, 1), (64, 24, 32)]
)
def test_nvdec_processes_take_the_place_of_workers_but_never_of_more_than_half(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr("decode_pool.settings.available_cores", lambda: cores)
    assert PoolSettings().worker_count(processes) == workers
    assert PoolSettings(workers=3).worker_count(processes) == 3


@pytest.mark.parametrize("config", [{"workers": "many"}, {"max_waiting": "0"}, {"max_decode_seconds": "-1"}])
def test_a_setting_out_of_bounds_is_refused(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="decode pool"):
        PoolSettings.from_config(config)
