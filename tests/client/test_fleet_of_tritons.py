"""Three real Tritons under load: one dies, one is stopped, one is slow, and every video gets its answer."""

import asyncio
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipserve import AsyncVideoClassifier, Row, VideoClassifier
from clipserve_export.formats import FormatName
from clipserve_server.triton import Triton
from tests.motion_repository import ANY_PORTS
from tests.watching import metric, server_of, wait_for

pytestmark = pytest.mark.long

VIDEOS = 240
PARALLEL = 9


@pytest.fixture(scope="module")
def tritons(repositories: Callable[[FormatName], Path]) -> Iterator[list[Triton]]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        running = [Triton(repositories("onnx"), models=["motion"], **ANY_PORTS) for _ in range(3)]
        try:
            for triton in running:
                triton.start()
            yield running
        finally:
            for triton in running:
                triton.stop()


def count_answers(tritons: list[Triton]) -> list[float]:
    return [metric(triton, 'nv_inference_request_success{model="motion"') for triton in tritons]


def classify(tritons: list[Triton], videos: Path, act: Callable[[], object] = lambda: None) -> list[Row]:
    """Classify VIDEOS videos, and do something after a quarter of them."""
    source = itertools.islice(itertools.cycle(sorted(videos.iterdir())), VIDEOS)
    rows = []
    with VideoClassifier("motion", [triton.grpc_url for triton in tritons]) as classifier:
        for row in classifier.classify_many(source, parallel=PARALLEL, ordered=False):
            rows.append(row)
            if len(rows) == VIDEOS // 4:
                act()
    return rows


def check(rows: list[Row]) -> None:
    assert len(rows) == VIDEOS
    assert [str(row.error) for row in rows if row.error] == []
    assert all(row.prediction.top.label == Path(row.video).stem for row in rows if row.prediction)


def measure_shares(tritons: list[Triton], work: Callable[[], list[Row]]) -> list[float]:
    before = count_answers(tritons)
    check(work())
    return [now - then for now, then in zip(count_answers(tritons), before, strict=True)]


def check_even(tritons: list[Triton], work: Callable[[], list[Row]]) -> None:
    """The shares are within 20 % of each other. Members that share two cores are equal over some rounds only: in one of
    them, three seconds, the scheduler may give one of them a third more.
    """
    totals = [0.0] * len(tritons)
    for _ in range(15):
        totals = [total + share for total, share in zip(totals, measure_shares(tritons, work), strict=True)]
        mean = sum(totals) / len(totals)
        if all(abs(total - mean) <= 0.2 * mean for total in totals):
            return
    raise AssertionError(f"uneven: {totals}")


def test_equal_members_get_equal_shares(tritons: list[Triton], motion_videos: Path) -> None:
    check_even(tritons, lambda: classify(tritons, motion_videos))


def test_the_same_in_asyncio(tritons: list[Triton], motion_videos: Path) -> None:
    async def run() -> list[Row]:
        source = itertools.islice(itertools.cycle(sorted(motion_videos.iterdir())), VIDEOS)
        async with AsyncVideoClassifier("motion", [triton.grpc_url for triton in tritons]) as classifier:
            return [row async for row in classifier.classify_many(source, parallel=PARALLEL)]

    check_even(tritons, lambda: asyncio.run(run()))


def test_a_slow_member_gets_less(tritons: list[Triton], motion_videos: Path) -> None:
    server = server_of(tritons[0])
    done = threading.Event()

    def slow_down() -> None:
        while not done.wait(0.03):
            server.send_signal(signal.SIGSTOP)
            done.wait(0.2)
            server.send_signal(signal.SIGCONT)

    slowing = threading.Thread(target=slow_down)
    slowing.start()
    try:
        slow, *others = measure_shares(tritons, lambda: classify(tritons, motion_videos))
    finally:
        done.set()
        slowing.join()
    assert slow < 0.7 * min(others), (slow, others)


def test_a_stopped_member_costs_no_failure_and_comes_back(tritons: list[Triton], motion_videos: Path) -> None:
    # Not with its stubs: then it may end when it goes on, because a lock's deadline has passed.
    server = server_of(tritons[0])
    try:
        check(classify(tritons, motion_videos, lambda: server.send_signal(signal.SIGSTOP)))
    finally:
        server.send_signal(signal.SIGCONT)
    shares = measure_shares(tritons, lambda: classify(tritons, motion_videos))
    assert min(shares) > 0


def test_a_killed_member_costs_no_failure_and_a_new_one_is_found(tritons: list[Triton], motion_videos: Path) -> None:
    dead = tritons[0]
    port = int(dead.grpc_url.rpartition(":")[2])
    server = server_of(dead)
    check(classify(tritons, motion_videos, server.kill))
    assert wait_for(dead.find_failure)
    dead.stop()
    with VideoClassifier("motion", [triton.grpc_url for triton in tritons]) as classifier:
        videos = sorted(motion_videos.iterdir())
        assert all(row.prediction for row in classifier.classify_many(videos * 3))
        tritons[0] = Triton(dead.repository, models=["motion"], **{**ANY_PORTS, "grpc_port": port})
        tritons[0].start()
        assert tritons[0].grpc_url == dead.grpc_url

        def is_used() -> bool:
            assert all(row.prediction for row in classifier.classify_many(videos))
            return count_answers(tritons)[0] > 0

        assert wait_for(is_used)
