"""Admission: which job is next, when its network has room, and which requests are refused as too late."""

import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from clip_decode.errors import Busy
from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling
from decode_pool.admission import BacklogLimit, NetworkBacklog
from decode_pool.job_queue import JobQueue, QueuedJob
from decode_pool.messages import Job
from decode_pool.settings import PoolSettings
from tests.watching import HANG_SECONDS, wait_for

SMALL, LARGE = Geometry(8, 8, 64, 64), Geometry(16, 5, 256, 256)
CLIP = 8 * 64 * 64 * 3  # bytes


class FakeTriton:
    """Triton as the decode step sees it: how many requests wait for each network.

    now: the time; None for the real one.
    """

    def __init__(self) -> None:
        self.now: float | None = None
        self.pending: dict[str, int] = {}
        self.error: OSError | None = None
        self.reported: list[OSError] = []
        self.polls = 0

    def read_pending(self) -> Mapping[str, int]:
        self.polls += 1
        if self.error is not None:
            raise self.error
        return dict(self.pending)

    def clock(self) -> float:
        return time.monotonic() if self.now is None else self.now

    def runs_two_in_two_seconds(self, backlog: NetworkBacklog) -> None:
        """From second 100 on, with polls every half a second: at 102.5, two requests run and two wait."""
        self.now = 100.0
        for _ in range(6):
            backlog.record_sent({"SMALL": CLIP})
        for pending in (4, 4, 4, 4, 2):
            self.poll(backlog, self.now + 0.5, pending)

    def poll(self, backlog: NetworkBacklog, moment: float, pending: int) -> None:
        self.now, self.pending = moment, {"small_net": pending}
        backlog.poll()

    def backlog(self, *, requests: int = 2, megabytes: int = 1) -> NetworkBacklog:
        limits = {name.upper(): BacklogLimit((f"{name}_net",), requests, megabytes) for name in ("small", "large")}
        return NetworkBacklog(limits, self.read_pending, self.reported.append, self.clock)


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def backlog(triton: FakeTriton) -> NetworkBacklog:
    return triton.backlog()


@pytest.fixture
def jobs(backlog: NetworkBacklog) -> Iterator[JobQueue]:
    made = JobQueue(PoolSettings(workers=1), backlog)
    yield made
    made.close()


def queued(name: str, geometry: Geometry = SMALL, *, deadline: float = math.inf, **sampling: int | str) -> QueuedJob:
    """A job whose video is the name of its output and what else it is called."""
    job = Job(name.encode(), {name.split()[0]: geometry}, Sampling(**sampling))  # type: ignore[arg-type]
    return QueuedJob(job, Future(), lambda: False, deadline)


def test_the_limit_counts_requests_that_are_being_decoded_or_wait_for_the_network(triton: FakeTriton) -> None:
    backlog, size = triton.backlog(), {"SMALL": CLIP}
    backlog.start_decoding(size)
    assert backlog.has_room(size)
    backlog.record_sent(size)
    backlog.end_decoding(size)
    backlog.start_decoding(size)
    assert not backlog.has_room(size), "one waits for the network, as far as is known, and one is being decoded"
    backlog.end_decoding(size)
    assert backlog.has_room(size), "it came to nothing"
    backlog.record_sent(size)
    triton.pending = {"small_net": 2}
    backlog.poll()
    assert not backlog.has_room(size)
    triton.pending = {"small_net": 1}
    backlog.poll()
    assert backlog.has_room(size)


def test_clips_are_bounded_in_bytes_and_one_request_may_always_wait(triton: FakeTriton) -> None:
    backlog, large = triton.backlog(requests=9), {"LARGE": 2 * 2**20}
    assert backlog.has_room(large)
    backlog.record_sent({"LARGE": 2**19})
    assert not backlog.has_room(large)
    assert backlog.has_room({"LARGE": 2**19})
    backlog.poll()
    assert backlog.has_room(large)


def test_requests_that_came_to_the_network_by_themselves_count_as_well(triton: FakeTriton) -> None:
    backlog = triton.backlog()
    triton.pending = {"small_net": 2}
    backlog.poll()
    assert not backlog.has_room({"SMALL": CLIP})
    assert backlog.has_room({"LARGE": CLIP})


def test_without_metrics_nothing_is_limited_and_it_is_reported_once(triton: FakeTriton) -> None:
    backlog, size = triton.backlog(requests=1), {"SMALL": CLIP}
    backlog.record_sent(size)
    triton.error = ConnectionRefusedError("no metrics")
    for _ in range(2):
        backlog.poll()
        assert backlog.has_room(size)
    assert triton.reported == [triton.error]
    triton.error = None
    backlog.poll()
    triton.error = TimeoutError()
    backlog.poll()
    assert len(triton.reported) == 2


def test_jobs_of_other_networks_pass_those_whose_network_is_full(triton: FakeTriton, jobs: JobQueue) -> None:
    triton.pending = {"small_net": 5}
    for name in ("SMALL 1", "SMALL 2", "SMALL 3", "LARGE 1", "SMALL 4"):
        jobs.put(queued(name))
    taken = [jobs.take(HANG_SECONDS).job.video.decode() for _ in range(3)]
    assert taken == ["SMALL 1", "SMALL 2", "LARGE 1"]
    with pytest.raises(queue.Empty):
        jobs.take(0.05)
    assert len(jobs) == 2


def test_a_job_that_waits_for_its_network_is_taken_as_soon_as_there_is_room(
    triton: FakeTriton, backlog: NetworkBacklog, jobs: JobQueue
) -> None:
    for name in ("SMALL 1", "SMALL 2", "SMALL 3"):
        jobs.put(queued(name))
    for _ in range(2):
        entry = jobs.take(HANG_SECONDS)
        backlog.record_sent(entry.sizes)
        entry.future.set_exception(ValueError())
    # Not before: a poll between the two would count one that has not been sent yet.
    triton.pending = {"small_net": 2}
    backlog.poll()
    polls = triton.polls
    found: list[QueuedJob] = []
    taker = threading.Thread(target=lambda: found.append(jobs.take(HANG_SECONDS)), daemon=True)
    taker.start()
    assert wait_for(lambda: triton.polls > polls + 2)
    assert not found
    triton.pending = {}
    taker.join()
    assert [entry.job.video for entry in found] == [b"SMALL 3"]


def test_a_small_job_does_not_pass_a_large_one_of_the_same_network(triton: FakeTriton, jobs: JobQueue) -> None:
    many = {"policy": "clip", "views": 10, "crops": 3}
    jobs.put(queued("SMALL 1"))
    jobs.put(queued("SMALL of thirty clips", **many))
    jobs.put(queued("SMALL 2"))
    first = jobs.take(HANG_SECONDS)
    with pytest.raises(queue.Empty):
        jobs.take(0.05)
    first.future.set_exception(ValueError())
    assert jobs.take(HANG_SECONDS).job.video == b"SMALL of thirty clips"


def test_closing_cancels_what_waits_and_wakes_who_waits_for_it(triton: FakeTriton) -> None:
    jobs = JobQueue(PoolSettings(workers=1), triton.backlog())
    triton.pending = {"small_net": 5, "large_net": 5}
    entries = [queued("SMALL 1"), queued("SMALL 2"), queued("SMALL 3")]
    for entry in entries:
        jobs.put(entry)
    for _ in range(2):
        jobs.take(HANG_SECONDS)
    done = threading.Event()

    def take() -> None:
        with pytest.raises(queue.Empty):
            jobs.take(600)
        done.set()

    threading.Thread(target=take, daemon=True).start()
    jobs.close()
    assert done.wait(HANG_SECONDS)
    assert entries[2].future.cancelled()
    assert len(jobs) == 0


def is_late(backlog: NetworkBacklog, seconds: float, size: int = CLIP, ahead: int = 0) -> bool:
    """Whether a request is refused that must be answered within so many seconds."""
    others = {"SMALL": [CLIP] * ahead}
    return backlog.deadline_error({"SMALL": size}, backlog._clock() + seconds, ahead=others) is not None


def test_with_many_decoders_a_full_run_can_wait_while_each_has_a_video_in_hand() -> None:
    assert BacklogLimit(("net",), 16, 512).for_decoders(2).requests == 16
    assert BacklogLimit(("net",), 64, 512).for_decoders(34).requests == 32 + 34


def test_a_request_is_refused_that_its_network_would_answer_after_its_deadline(
    triton: FakeTriton, backlog: NetworkBacklog
) -> None:
    triton.runs_two_in_two_seconds(backlog)
    # Two run until 104.5, two until 106.5, and the next two, this one among them, until 108.5; and a fifth is added.
    assert is_late(backlog, 7.1)
    assert not is_late(backlog, 7.3)
    assert is_late(backlog, 7.1, ahead=1)
    assert not is_late(backlog, 7.3, ahead=1)
    assert is_late(backlog, 9.5, ahead=2)
    assert is_late(backlog, 40.0, size=20 * CLIP)
    refusal = backlog.deadline_error({"SMALL": CLIP, "OTHER": CLIP}, 102.5 + 3)
    assert refusal is not None
    assert refusal.retryable
    assert "in about 7.2 s, but the request's timeout leaves 3.0 s" in str(refusal)
    assert backlog.deadline_error({"SMALL": CLIP}, math.inf) is None
    assert backlog.deadline_error({"LARGE": CLIP}, 102.6) is None


def test_what_is_being_decoded_goes_first_as_well(triton: FakeTriton, backlog: NetworkBacklog) -> None:
    triton.runs_two_in_two_seconds(backlog)
    for _ in range(2):
        backlog.start_decoding({"SMALL": CLIP})
    assert is_late(backlog, 9.5)
    assert not is_late(backlog, 9.7)


def test_no_request_is_refused_where_the_speed_of_the_network_is_not_known(
    triton: FakeTriton, backlog: NetworkBacklog
) -> None:
    triton.now = 100.0
    for _ in range(9):
        backlog.record_sent({"SMALL": CLIP})
    assert not is_late(backlog, 0.001)
    triton.poll(backlog, 100.5, 7)
    assert not is_late(backlog, 0.001), "one run alone does not tell how long it takes"
    triton.poll(backlog, 110.0, 5)
    assert not is_late(backlog, 0.001), "when the second began is not known, since nobody looked for long"


def test_an_idle_network_takes_every_request(triton: FakeTriton, backlog: NetworkBacklog) -> None:
    triton.runs_two_in_two_seconds(backlog)
    triton.poll(backlog, 104.5, 0)
    assert is_late(backlog, 0.1), "the last two run"
    triton.now = 106.6
    assert not is_late(backlog, 0.001)


def test_a_network_that_gets_faster_is_seen_to_be_and_what_was_slow_is_forgotten(
    triton: FakeTriton, backlog: NetworkBacklog
) -> None:
    triton.runs_two_in_two_seconds(backlog)
    assert is_late(backlog, 4.0)
    triton.now = 102.5 + 5
    assert not is_late(backlog, 4.0), "nothing was seen for five seconds"
    triton.runs_two_in_two_seconds(backlog)
    for _ in range(40):
        backlog.record_sent({"SMALL": CLIP})
    for left in range(21):
        for poll in range(1, 5):
            triton.poll(backlog, 102.5 + left / 5 + poll / 20, 42 - 2 * left - 2 * (poll == 4))
    assert is_late(backlog, 0.2)
    assert not is_late(backlog, 1.0), "a run takes a fifth of a second now"


def test_without_metrics_nothing_is_refused(triton: FakeTriton, backlog: NetworkBacklog) -> None:
    triton.runs_two_in_two_seconds(backlog)
    triton.error = ConnectionRefusedError("no metrics")
    triton.poll(backlog, 103.0, 0)
    assert not is_late(backlog, 0.001)


def test_late_jobs_are_refused_while_they_wait_and_others_are_not(triton: FakeTriton) -> None:
    backlog = triton.backlog(requests=3)
    triton.runs_two_in_two_seconds(backlog)
    jobs = JobQueue(PoolSettings(workers=1), backlog)
    try:
        entries = [
            queued("SMALL in time", deadline=200.0),
            queued("SMALL late", deadline=105.0),
            queued("SMALL without a deadline"),
            queued("SMALL late by its place", deadline=102.5 + 8.3),
            queued("LARGE", deadline=102.6),
        ]
        for entry in entries:
            jobs.put(entry)
        assert [jobs.take(HANG_SECONDS).job.video for _ in range(2)] == [b"SMALL in time", b"LARGE"]
        for late in (entries[1], entries[3]):
            with pytest.raises(Busy, match="would answer this request"):
                late.future.result(HANG_SECONDS)
        assert len(jobs) == 1
        triton.pending = {}
        assert jobs.take(HANG_SECONDS) is entries[2]
    finally:
        jobs.close()


def test_a_job_whose_deadline_has_passed_is_cancelled_and_not_refused(
    triton: FakeTriton, backlog: NetworkBacklog
) -> None:
    triton.runs_two_in_two_seconds(backlog)
    jobs = JobQueue(PoolSettings(workers=1), backlog)
    job = queued("SMALL").job
    gone = QueuedJob(job, Future(), lambda: True, deadline=101.0)
    jobs.put(gone)
    assert wait_for(gone.future.cancelled)
    jobs.close()


@pytest.mark.parametrize(
    "text", ["three", "{}", '{"networks": ["a"], "requests": 0, "megabytes": 1}', '{"networks": 3, "requests": 1}']
)
def test_a_queue_that_is_not_described_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a network's queue"):
        BacklogLimit.from_config(text)
