"""Workers may die, hang or swell; one request is lost with each, and nobody else notices."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthesis import Clip
from tests.watching import wait_for

from clip_decode.engine import decode_clips
from clip_decode.errors import Busy, Crashed, NotAVideo, OutOfMemory, TimedOut, error_classes
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling
from decode_pool.messages import Decoded, Job
from decode_pool.metrics import DecodeMetrics
from decode_pool.pool import DecodePool
from decode_pool.settings import PoolSettings, available_cores

GEOMETRIES = {"CLIP": Geometry(8, 8, 64, 64)}
REPLACED_SECONDS = 1.0


@pytest.fixture(scope="module")
def video() -> bytes:
    return Clip(frames=60).make()


@pytest.fixture
def start() -> Iterator[Callable[..., DecodePool]]:
    pools: list[DecodePool] = []

    def start(**settings: int) -> DecodePool:
        pools.append(DecodePool(PoolSettings(**{"workers": 1, **settings}), Limits()))
        pools[-1].wait_until_ready(30)
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def job(video: bytes, sampling: Sampling | None = None) -> Job:
    return Job(video, GEOMETRIES, sampling or Sampling())


@pytest.fixture(scope="module")
def slow_video() -> bytes:
    """Takes long enough to decode that something can happen meanwhile."""
    return Clip(frames=150, width=1280, height=720, options={"preset": "ultrafast"}).make()


def pause_at_work(pool: DecodePool, slow_video: bytes) -> tuple[int, Future[Decoded]]:
    """Stop the only worker in the middle of a video."""
    (pid,) = pool.pids
    before = processor_seconds(pid)
    # Seconds of work: thirty clips, resized in floats.
    future = pool.submit(job(slow_video, Sampling(policy="clip", views=10, crops=3, quality="reference")))
    assert wait_for(lambda: processor_seconds(pid) > before + 0.05, 10)
    os.kill(pid, signal.SIGSTOP)
    assert not future.done()
    return pid, future


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pause(pool: DecodePool) -> int:
    """Stop the only worker: to the pool it hangs."""
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_workers_leave_the_cores_to_what_comes_after_decoding(start: Callable[..., DecodePool]) -> None:
    (pid,) = start().pids
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)


def test_the_time_of_a_job_includes_its_decoding(start: Callable[..., DecodePool], video: bytes) -> None:
    decoded = start().submit(Job(video, GEOMETRIES, Sampling())).result(30)
    assert decoded.seconds >= json.loads(decoded.report)["decode_milliseconds"] / 1000 > 0.001


def test_the_pool_gives_what_the_engine_gives(start: Callable[..., DecodePool], video: bytes) -> None:
    sampling = Sampling(policy="clip", views=2, crops=3, quality="reference")
    expected, _ = decode_clips(video, GEOMETRIES, sampling, Limits())
    decoded = start().submit(job(video, sampling)).result(30)
    np.testing.assert_array_equal(decoded.clips["CLIP"], expected["CLIP"])
    assert '"codec":"h264"' in decoded.report


def test_an_error_of_the_engine_keeps_its_class_and_the_worker(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    before = pool.pids
    with pytest.raises(NotAVideo, match="no format known"):
        pool.submit(job(b"no video" * 100)).result(30)
    assert pool.submit(job(video)).result(30)
    assert pool.pids == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_dies_at_work_costs_its_request_and_is_replaced(
    start: Callable[..., DecodePool], video: bytes, slow_video: bytes, number: signal.Signals
) -> None:
    pool = start()
    pid, lost = pause_at_work(pool, slow_video)
    kept = pool.submit(job(video))
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(Crashed, match=number.name):
        lost.result(10)
    died = time.monotonic()
    assert wait_for(lambda: pool.pids and pool.pids != [pid], 5)
    assert time.monotonic() - died < REPLACED_SECONDS
    assert kept.result(30).clips["CLIP"].shape == (1, 8, 64, 64, 3)


def test_a_worker_that_dies_idle_is_replaced_and_nobody_notices(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert pool.submit(job(video)).result(30)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: pool.pids and pool.pids != [pid], REPLACED_SECONDS)


def test_a_worker_that_hangs_is_killed_when_its_time_is_up(
    start: Callable[..., DecodePool], video: bytes, slow_video: bytes
) -> None:
    pool = start(max_decode_seconds=1)
    pid, hanging = pause_at_work(pool, slow_video)
    with pytest.raises(TimedOut, match="more than 1 seconds"):
        hanging.result(10)
    assert not Path(f"/proc/{pid}").exists()
    assert pool.submit(job(video)).result(30)


def test_a_video_that_takes_too_much_memory_is_told_so_and_the_next_is_served(
    start: Callable[..., DecodePool], video: bytes
) -> None:
    pool = start(max_worker_megabytes=24)
    large = Clip(frames=24, width=2560, height=1440).make()
    with pytest.raises(OutOfMemory, match="more than 24 MiB"):
        pool.submit(job(large)).result(30)
    assert pool.submit(job(video)).result(30)


def test_a_full_queue_is_busy_which_is_worth_trying_again(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start(max_waiting=1)
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running, 5)
    second = pool.submit(job(video))
    with pytest.raises(Busy, match="1 videos wait for 1 decoders") as raised:
        pool.submit(job(video))
    assert raised.value.retryable
    os.kill(pid, signal.SIGCONT)
    assert first.result(30)
    assert second.result(30)
    assert pool.submit(job(video)).result(30)


def test_videos_that_wait_are_bounded_in_bytes_too(start: Callable[..., DecodePool], video: bytes) -> None:
    """Sixty-four of the largest that may come would be 32 GiB."""
    pool = start(max_waiting_megabytes=1)
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running, 5)
    large = video + bytes(3 * 2**20)
    alone = pool.submit(job(large))
    with pytest.raises(Busy, match="more than 1 MiB") as raised:
        pool.submit(job(video))
    assert raised.value.retryable
    os.kill(pid, signal.SIGCONT)
    assert first.result(30)
    assert alone.result(30)
    assert pool.submit(job(video)).result(30)


def test_a_request_that_was_cancelled_is_not_decoded(start: Callable[..., DecodePool], video: bytes) -> None:
    pool = start()
    pid = pause(pool)
    first = pool.submit(job(video))
    assert wait_for(first.running, 5)
    abandoned = pool.submit(job(b"never looked at"), cancelled=lambda: True)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(CancelledError):
        abandoned.result(30)
    assert first.result(30)


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
    finished, kills = threading.Event(), 0

    def kill_at_random() -> None:
        nonlocal kills
        choice = random.Random(0)
        while not finished.wait(choice.uniform(0.3, 0.6)):
            if pids := pool.pids:
                os.kill(choice.choice(pids), signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill_at_random)
    killer.start()
    try:
        futures = []
        started = time.monotonic()
        while kills < 8 and time.monotonic() - started < 60:
            futures.append(pool.submit(job(video)))
            time.sleep(0.02)
        failures = [future.exception(60) for future in futures]
    finally:
        finished.set()
        killer.join()
    assert kills >= 8
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
    assert available_cores(tmp_path) == min(mine, cores or mine)
    assert PoolSettings(workers=0).worker_count >= 1
    assert PoolSettings(workers=3).worker_count == 3


@pytest.mark.parametrize("config", [{"workers": "many"}, {"max_waiting": "0"}, {"max_decode_seconds": "-1"}])
def test_a_setting_out_of_bounds_is_refused(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="decode pool"):
        PoolSettings.from_config(config)


class Families:
    """pb_utils.MetricFamily, which exists only inside Triton: the values of all metrics, by family and labels."""

    COUNTER, GAUGE = "counter", "gauge"

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}

    def __call__(self, *, name: str, description: str, kind: str) -> Any:
        return SimpleNamespace(Metric=lambda labels: self.add(name, labels))

    def add(self, family: str, labels: dict[str, str]) -> Any:
        key = family, ",".join(labels.values())
        assert key not in self.values
        self.values[key] = 0

        def increment(amount: float) -> None:
            self.values[key] += amount

        return SimpleNamespace(increment=increment)

    def family(self, name: str) -> dict[str, float]:
        return {labels: value for (family, labels), value in self.values.items() if family == name}


def test_every_outcome_is_counted_from_zero_on() -> None:
    """A first failure that comes together with its counter is none to Prometheus' rate()."""
    families = Families()
    metrics = DecodeMetrics(families)
    outcomes = ["ok", "cancelled", "expired", "failed", *error_classes()]
    assert families.family("clipserve_decode_total") == dict.fromkeys(outcomes, 0)
    for outcome in outcomes:
        metrics.count_outcome(outcome)
    assert families.family("clipserve_decode_total") == dict.fromkeys(outcomes, 1)
