"""The queue of decode jobs: which one NVDEC takes, which a CPU, and for how many there is room."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from clip_decode.errors import Busy
from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling
from decode_pool.admission import BacklogLimit, NetworkBacklog
from decode_pool.job_queue import JobQueue, QueuedJob
from decode_pool.messages import Decoded, Job
from decode_pool.settings import PoolSettings
from tests.watching import HANG_SECONDS, wait_for


def queued(name: str) -> QueuedJob:
    job = Job(name.encode(), {"CLIP": Geometry(8, 8, 64, 64)}, Sampling())
    return QueuedJob(job, Future(), lambda: False)


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    # Room for two videos on their way to the network.
    made = JobQueue(
        PoolSettings(max_waiting=3), NetworkBacklog({"CLIP": BacklogLimit(("net",), requests=2, megabytes=100)})
    )
    yield made
    made.close()


def test_a_networks_queue_has_room_for_what_all_decoders_have_in_hand() -> None:
    limit = BacklogLimit(("net",), requests=16, megabytes=512)
    # A full run, 8, waits while each decoder has one in hand.
    assert limit.for_decoders(30) == BacklogLimit(("net",), requests=8 + 30, megabytes=512)
    assert limit.for_decoders(2) == limit


def test_jobs_that_nvdec_leaves_are_next_for_a_cpu_and_keep_their_room(jobs: JobQueue) -> None:
    first, second, third = queued("first"), queued("second"), queued("third")
    for each in (first, second, third):
        jobs.put(each)
    with pytest.raises(Busy):
        jobs.put(queued("one too many"))
    assert jobs.take(0, nvdec=True) is first
    jobs.requeue(first)
    assert jobs.take(0, nvdec=True) is second
    with pytest.raises(queue.Empty):
        jobs.take(0, nvdec=True)
    again = jobs.take(0)
    assert again.cpu_only
    assert again.future is first.future
    with pytest.raises(queue.Empty):
        jobs.take(0)
    first.future.set_result(Decoded({}, "", 0.0))
    assert jobs.take(0) is third


def test_a_cpu_leaves_a_job_to_a_free_nvdec_and_takes_what_that_leaves(jobs: JobQueue) -> None:
    with ThreadPoolExecutor(2) as threads:
        by_nvdec = threads.submit(jobs.take, HANG_SECONDS, nvdec=True)
        assert wait_for(lambda: jobs._free_nvdec == 1)
        by_cpu = threads.submit(jobs.take, HANG_SECONDS)
        first, second = queued("first"), queued("second")
        jobs.put(first)
        assert by_nvdec.result(HANG_SECONDS) is first
        jobs.put(second)
        assert by_cpu.result(HANG_SECONDS) is second


def test_a_queue_that_closes_leaves_nobody_waiting(jobs: JobQueue) -> None:
    fresh, begun, late = queued("fresh"), queued("begun"), queued("late")
    jobs.put(fresh)
    for each in (begun, late):
        assert each.start()
    jobs.requeue(begun)
    jobs.close()
    jobs.requeue(late)
    assert fresh.future.cancelled()
    assert isinstance(begun.future.exception(0), Busy)
    assert isinstance(late.future.exception(0), Busy)
