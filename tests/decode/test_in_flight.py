"""The file that tells whoever stops the server about the requests in flight: both sides of it, and their copies."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_decode.errors import Busy
from clipserve_host.in_flight import VARIABLE, finish_requests
from decode_model import in_flight
from decode_model.in_flight import InFlight
from tests.watching import NEVER_SECONDS, at_once, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file, which whoever starts the server makes."""
    file = tmp_path / "in_flight"
    file.touch()
    return file


def finish_soon(path: Path, is_running: Callable[[], bool] = lambda: True) -> bool:
    return finish_requests(path, deadline=time.monotonic() + NEVER_SECONDS, is_running=is_running)


def test_a_stop_waits_for_every_request_that_began_and_lets_no_more_begin(path: Path) -> None:
    requests = InFlight(str(path))
    requests.begin()
    requests.begin()
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(finish_soon, path)
        assert wait_for(lambda: path.stat().st_size)
        with pytest.raises(Busy, match="the server is stopping"):
            requests.begin()
        requests.end()
        assert not finished.done()
        requests.end()
        assert finished.result()
    with pytest.raises(Busy, match="the server is stopping"):
        requests.begin()


def test_a_stop_with_no_request_does_not_wait(path: Path) -> None:
    requests = InFlight(str(path))
    requests.begin()
    requests.end()
    with at_once():
        assert finish_soon(path)


def test_a_stop_gives_up_at_its_deadline_and_when_triton_has_ended(path: Path) -> None:
    held = InFlight(str(path))
    held.begin()
    assert not finish_requests(path, deadline=time.monotonic(), is_running=lambda: True)
    assert not finish_soon(path, is_running=lambda: False)
    held.end()


def test_a_process_that_dies_has_no_requests_in_flight(path: Path) -> None:
    program = f"""
from decode_model.in_flight import InFlight
requests = InFlight({str(path)!r})
requests.begin()
print("begun", flush=True)
input()
"""
    folder = ROOT / "model_repository" / "decode" / "1" / "packages"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not finish_requests(path, deadline=time.monotonic(), is_running=lambda: True)
        process.kill()
        process.wait()
        assert finish_soon(path)


def test_without_a_file_every_request_begins() -> None:
    requests = InFlight("")
    requests.begin()
    requests.end()


def test_both_sides_mean_the_same_file() -> None:
    assert in_flight.VARIABLE == VARIABLE
