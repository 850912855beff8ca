"""What waits before the decode step and behind it: who goes first, and when there is room."""

import contextlib
import math
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clip_decode.errors import Busy
from clip_decode.geometry import Geometry
from clip_decode.sampling import Sampling
from decode_pool import metrics_page
from decode_pool.messages import Job
from decode_pool.metrics_page import MetricsPage
from decode_pool.networks import Bound, Networks
from decode_pool.settings import PoolSettings
from decode_pool.waiting_line import Waiting, WaitingLine
from tests.watching import at_once, wait_for

SMALL, LARGE = Geometry(8, 8, 64, 64), Geometry(16, 5, 256, 256)
CLIP = 8 * 64 * 64 * 3  # bytes
PAGE = """\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="decode",version="1"} 1
nv_inference_pending_request_count{model="small_net",version="1"} 3
nv_inference_pending_request_count{model="small_net",version="2"} 4
nv_inference_request_success{model="small_net",version="1"} 99
"""


class Triton:
    """As the decode step sees it: how many requests wait for each network.

    now: the time, where a test makes it up.
    """

    def __init__(self) -> None:
        self.now: float | None = None
        self.waiting: dict[str, int] = {}
        self.error: OSError | None = None
        self.complaints: list[OSError] = []
        self.looks = 0

    def read_waiting(self) -> Mapping[str, int]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return dict(self.waiting)

    def clock(self) -> float:
        return time.monotonic() if self.now is None else self.now

    def runs_two_in_two_seconds(self, networks: Networks) -> None:
        """From second 100 on, with looks every half a second: at 102.5, two requests run and two wait."""
        self.now = 100.0
        for _ in range(6):
            networks.send({"SMALL": CLIP})
        for waiting in (4, 4, 4, 4, 2):
            self.look(networks, self.now + 0.5, waiting)

    def look(self, networks: Networks, moment: float, waiting: int) -> None:
        self.now, self.waiting = moment, {"small_net": waiting}
        networks.look()

    def networks(self, *, requests: int = 2, megabytes: int = 1) -> Networks:
        bounds = {name.upper(): Bound((f"{name}_net",), requests, megabytes) for name in ("small", "large")}
        return Networks(bounds, self.read_waiting, self.complaints.append, self.clock)


@pytest.fixture
def triton() -> Triton:
    return Triton()


@pytest.fixture
def networks(triton: Triton) -> Networks:
    return triton.networks()


@pytest.fixture
def line(networks: Networks) -> Iterator[WaitingLine]:
    made = WaitingLine(PoolSettings(workers=1), networks)
    yield made
    made.close()


def waiting(name: str, geometry: Geometry = SMALL, *, deadline: float = math.inf, **sampling: int | str) -> Waiting:
    """A job whose video is the name of its output and what else it is called."""
    job = Job(name.encode(), {name.split()[0]: geometry}, Sampling(**sampling))  # type: ignore[arg-type]
    return Waiting(job, Future(), lambda: False, deadline)


def test_so_many_requests_may_be_under_way_and_more_when_some_are_gone(triton: Triton) -> None:
    networks, size = triton.networks(), {"SMALL": CLIP}
    networks.begin(size)
    assert networks.has_room(size)
    networks.send(size)
    networks.end(size)
    networks.begin(size)
    assert not networks.has_room(size), "one waits for the network, as far as is known, and one is being decoded"
    networks.end(size)
    assert networks.has_room(size), "it came to nothing"
    networks.send(size)
    triton.waiting = {"small_net": 2}
    networks.look()
    assert not networks.has_room(size)
    triton.waiting = {"small_net": 1}
    networks.look()
    assert networks.has_room(size)


def test_clips_are_bounded_in_bytes_and_one_request_may_always_wait(triton: Triton) -> None:
    networks, large = triton.networks(requests=9), {"LARGE": 2 * 2**20}
    assert networks.has_room(large)
    networks.send({"LARGE": 2**19})
    assert not networks.has_room(large)
    assert networks.has_room({"LARGE": 2**19})
    networks.look()
    assert networks.has_room(large)


def test_requests_that_came_to_the_network_by_themselves_count_as_well(triton: Triton) -> None:
    networks = triton.networks()
    triton.waiting = {"small_net": 2}
    networks.look()
    assert not networks.has_room({"SMALL": CLIP})
    assert networks.has_room({"LARGE": CLIP})


def test_where_nothing_can_be_seen_nothing_is_held_up_and_it_is_said_once(triton: Triton) -> None:
    networks, size = triton.networks(requests=1), {"SMALL": CLIP}
    networks.send(size)
    triton.error = ConnectionRefusedError("no metrics")
    for _ in range(2):
        networks.look()
        assert networks.has_room(size)
    assert triton.complaints == [triton.error]
    triton.error = None
    networks.look()
    triton.error = TimeoutError()
    networks.look()
    assert len(triton.complaints) == 2


def test_jobs_of_other_networks_pass_those_whose_network_is_full(triton: Triton, line: WaitingLine) -> None:
    triton.waiting = {"small_net": 5}
    for name in ("SMALL 1", "SMALL 2", "SMALL 3", "LARGE 1", "SMALL 4"):
        line.put(waiting(name))
    taken = [line.take(5).job.video.decode() for _ in range(3)]
    assert taken == ["SMALL 1", "SMALL 2", "LARGE 1"]
    with pytest.raises(queue.Empty):
        line.take(0.05)
    assert len(line) == 2


def test_a_job_that_waits_for_its_network_is_taken_as_soon_as_there_is_room(
    triton: Triton, networks: Networks, line: WaitingLine
) -> None:
    triton.waiting = {"small_net": 2}
    for name in ("SMALL 1", "SMALL 2", "SMALL 3"):
        line.put(waiting(name))
    for _ in range(2):
        entry = line.take(5)
        networks.send(entry.sizes)
        entry.future.set_exception(ValueError())
    found: list[Waiting] = []
    taker = threading.Thread(target=lambda: found.append(line.take(30)), daemon=True)
    taker.start()
    assert wait_for(lambda: triton.looks > 2, 10)
    assert not found
    triton.waiting = {}
    taker.join(10)
    assert [entry.job.video for entry in found] == [b"SMALL 3"]


def test_a_small_job_does_not_pass_a_large_one_of_the_same_network(triton: Triton, line: WaitingLine) -> None:
    many = {"policy": "clip", "views": 10, "crops": 3}
    line.put(waiting("SMALL 1"))
    line.put(waiting("SMALL of thirty clips", **many))
    line.put(waiting("SMALL 2"))
    first = line.take(5)
    with pytest.raises(queue.Empty):
        line.take(0.05)
    first.future.set_exception(ValueError())
    assert line.take(5).job.video == b"SMALL of thirty clips"


def test_closing_cancels_what_waits_and_wakes_who_waits_for_it(triton: Triton) -> None:
    line = WaitingLine(PoolSettings(workers=1), triton.networks())
    triton.waiting = {"small_net": 5, "large_net": 5}
    entries = [waiting("SMALL 1"), waiting("SMALL 2"), waiting("SMALL 3")]
    for entry in entries:
        line.put(entry)
    for _ in range(2):
        line.take(5)
    done = threading.Event()

    def take() -> None:
        with pytest.raises(queue.Empty):
            line.take(600)
        done.set()

    threading.Thread(target=take, daemon=True).start()
    line.close()
    assert done.wait(10)
    assert entries[2].future.cancelled()
    assert len(line) == 0


def is_late(networks: Networks, seconds: float, size: int = CLIP, behind: int = 0) -> bool:
    """Whether a request is refused that must be answered within so many seconds."""
    others = {"SMALL": [CLIP] * behind}
    return networks.refusal({"SMALL": size}, networks._clock() + seconds, behind=others) is not None


def test_with_many_decoders_a_full_run_can_wait_while_each_has_a_video_in_hand() -> None:
    assert Bound(("net",), 16, 512).for_decoders(2).requests == 16
    assert Bound(("net",), 64, 512).for_decoders(34).requests == 32 + 34


def test_a_request_is_refused_that_its_network_would_answer_after_its_deadline(
    triton: Triton, networks: Networks
) -> None:
    triton.runs_two_in_two_seconds(networks)
    # Two run until 104.5, two until 106.5, and the next two, this one among them, until 108.5; and a fifth is added.
    assert is_late(networks, 7.1)
    assert not is_late(networks, 7.3)
    assert is_late(networks, 7.1, behind=1)
    assert not is_late(networks, 7.3, behind=1)
    assert is_late(networks, 9.5, behind=2)
    assert is_late(networks, 40.0, size=20 * CLIP)
    refusal = networks.refusal({"SMALL": CLIP, "OTHER": CLIP}, 102.5 + 3)
    assert refusal is not None
    assert refusal.retryable
    assert "in about 7.2 s, and the request's timeout leaves 3.0 s" in str(refusal)
    assert networks.refusal({"SMALL": CLIP}, math.inf) is None
    assert networks.refusal({"LARGE": CLIP}, 102.6) is None


def test_what_is_being_decoded_goes_first_as_well(triton: Triton, networks: Networks) -> None:
    triton.runs_two_in_two_seconds(networks)
    for _ in range(2):
        networks.begin({"SMALL": CLIP})
    assert is_late(networks, 9.5)
    assert not is_late(networks, 9.7)


def test_no_request_is_refused_where_the_speed_of_the_network_is_not_known(triton: Triton, networks: Networks) -> None:
    triton.now = 100.0
    for _ in range(9):
        networks.send({"SMALL": CLIP})
    assert not is_late(networks, 0.001)
    triton.look(networks, 100.5, 7)
    assert not is_late(networks, 0.001), "one run alone does not tell how long it takes"
    triton.look(networks, 110.0, 5)
    assert not is_late(networks, 0.001), "when the second began is not known, since nobody looked for long"


def test_an_idle_network_takes_every_request(triton: Triton, networks: Networks) -> None:
    triton.runs_two_in_two_seconds(networks)
    triton.look(networks, 104.5, 0)
    assert is_late(networks, 0.1), "the last two run"
    triton.now = 106.6
    assert not is_late(networks, 0.001)


def test_a_network_that_gets_faster_is_seen_to_be_and_what_was_slow_is_forgotten(
    triton: Triton, networks: Networks
) -> None:
    triton.runs_two_in_two_seconds(networks)
    assert is_late(networks, 4.0)
    triton.now = 102.5 + 5
    assert not is_late(networks, 4.0), "nothing was seen for five seconds"
    triton.runs_two_in_two_seconds(networks)
    for _ in range(40):
        networks.send({"SMALL": CLIP})
    for left in range(21):
        for look in range(1, 5):
            triton.look(networks, 102.5 + left / 5 + look / 20, 42 - 2 * left - 2 * (look == 4))
    assert is_late(networks, 0.2)
    assert not is_late(networks, 1.0), "a run takes a fifth of a second now"


def test_nothing_is_refused_while_nothing_can_be_seen(triton: Triton, networks: Networks) -> None:
    triton.runs_two_in_two_seconds(networks)
    triton.error = ConnectionRefusedError("no metrics")
    triton.look(networks, 103.0, 0)
    assert not is_late(networks, 0.001)


def test_late_jobs_are_refused_while_they_wait_and_others_are_not(triton: Triton) -> None:
    networks = triton.networks(requests=3)
    triton.runs_two_in_two_seconds(networks)
    line = WaitingLine(PoolSettings(workers=1), networks)
    try:
        entries = [
            waiting("SMALL in time", deadline=200.0),
            waiting("SMALL late", deadline=105.0),
            waiting("SMALL without a deadline"),
            waiting("SMALL late by its place", deadline=102.5 + 8.3),
            waiting("LARGE", deadline=102.6),
        ]
        for entry in entries:
            line.put(entry)
        assert [line.take(5).job.video for _ in range(2)] == [b"SMALL in time", b"LARGE"]
        for late in (entries[1], entries[3]):
            with pytest.raises(Busy, match="would be done with this request"):
                late.future.result(10)
        assert len(line) == 1
        triton.waiting = {}
        assert line.take(5) is entries[2]
    finally:
        line.close()


def test_a_job_whose_deadline_has_passed_is_cancelled_and_not_refused(triton: Triton, networks: Networks) -> None:
    triton.runs_two_in_two_seconds(networks)
    line = WaitingLine(PoolSettings(workers=1), networks)
    job = waiting("SMALL").job
    gone = Waiting(job, Future(), lambda: True, deadline=101.0)
    line.put(gone)
    assert wait_for(gone.future.cancelled, 10)
    line.close()


@pytest.fixture
def page() -> Iterator[str]:
    """The address of PAGE."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in ("/metrics", "/other") else 404)
            self.end_headers()
            self.wfile.write(PAGE.encode() if self.path == "/metrics" else b"go_goroutines 7\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_metrics_page_tells_what_waits_whatever_the_proxy(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("CLIPSERVE_METRICS_URL", f"{page}/metrics")
    assert MetricsPage().read_waiting() == {"decode": 1, "small_net": 7}


def test_a_metrics_page_that_is_not_there_is_an_os_error_with_its_address(page: str) -> None:
    for url in (f"{page}/elsewhere", "http://127.0.0.1:1/metrics", f"http://{'a' * 64}.invalid/metrics"):
        with pytest.raises(OSError, match=url):
            MetricsPage(url).read_waiting()


@pytest.mark.parametrize("begin", ["", "HTTP/1.1 200 OK\r\n\r\n"])
def test_a_page_that_comes_byte_by_byte_is_given_up(begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_page, "TIMEOUT_SECONDS", 0.3)
    given_up = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(begin.encode())
            while not given_up.wait(0.05):
                connection.sendall(b"X")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener], daemon=True)
        thread.start()
        try:
            with at_once(), pytest.raises(OSError, match="timed out"):
                MetricsPage(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics").read_waiting()
        finally:
            given_up.set()
            thread.join()


def test_the_page_of_another_program_does_not_pass_for_one_on_which_nothing_waits(page: str) -> None:
    with pytest.raises(OSError, match="is not Triton's"):
        MetricsPage(f"{page}/other").read_waiting()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/metrics", "http://127.0.0.1:port/metrics", "http://[::1/"])
def test_what_is_no_address_of_a_page_is_told_as_the_model_loads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSERVE_METRICS_URL", url)
    with pytest.raises(ValueError, match="CLIPSERVE_METRICS_URL"):
        MetricsPage()


@pytest.mark.parametrize(
    "text", ["three", "{}", '{"networks": ["a"], "requests": 0, "megabytes": 1}', '{"networks": 3, "requests": 1}']
)
def test_a_queue_that_is_not_described_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a network's queue"):
        Bound.from_config(text)
