"""A start waits for every port; a Triton that crashes or gets stuck as it starts is started a second time."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from clipserve_export.formats import FormatName
from clipserve_host.processes import Process, processes_of
from clipserve_server import startup
from clipserve_server.errors import ServerStartError, StartCrashed
from clipserve_server.triton import Triton
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.watching import stubs, when


def find_servers() -> list[Process]:
    """The tritonservers that this process starts, with their stubs and workers."""
    return [process for guard in psutil.Process().children() for process in processes_of(guard.pid)]


@contextmanager
def hurting(signal_number: int, times: int) -> Iterator[list[int]]:
    """Send a signal to the first `times` servers that start in the block, once they have started their stubs."""
    hurt: list[int] = []
    others = {process.group for process in find_servers()}
    done = threading.Event()

    def act() -> bool:
        groups: dict[int, list[Process]] = {}
        for process in find_servers():
            groups.setdefault(process.group, []).append(process)
        for group, processes in groups.items():
            has_stub = any(process.name.startswith("triton_python") for process in processes)
            if group not in others and has_stub:
                others.add(group)
                os.killpg(group, signal_number)
                hurt.append(group)
        return len(hurt) == times or done.is_set()

    thread = when(act, lambda: None)
    try:
        yield hurt
    finally:
        done.set()
        thread.join()


def check_second_start(repository: Path, signal_number: int, said: str) -> None:
    """Hurt a server as it starts; another one serves, and the operator is told."""
    triton = KilledTriton(repository, models=["motion"], **ANY_PORTS)
    with hurting(signal_number, times=1) as hurt, triton:
        assert len(hurt) == 1
        assert stubs(triton, "decode")
        assert any(said in notice for notice in triton.notices())


def test_a_server_is_ready_once_all_of_its_ports_are_open(
    repositories: Callable[[FormatName], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def is_open(host: str, port: int) -> bool:
        asked.append(port)
        return len(asked) > 3

    monkeypatch.setattr(startup, "_is_open", is_open)
    with KilledTriton(repositories("onnx"), models=["motion"], **ANY_PORTS) as triton:
        http, metrics = (int(re.findall(r":(\d+)", url)[-1]) for url in (triton.http_url, triton.metrics_url))
        assert asked[-2:] == [http, metrics]
        assert asked.count(http) == asked.count(metrics) >= 2


def test_a_crash_is_followed_by_a_second_start(repositories: Callable[[FormatName], Path]) -> None:
    check_second_start(repositories("onnx"), signal.SIGABRT, "Triton crashed as it started (SIGABRT)")


@pytest.mark.long
def test_a_start_that_is_stuck_is_followed_by_a_second_one(
    repositories: Callable[[FormatName], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "STUCK_SECONDS", 3.0)
    check_second_start(repositories("onnx"), signal.SIGSTOP, "got stuck as it started: idle for 3 s")


@pytest.mark.long
def test_a_second_crash_is_the_end(repositories: Callable[[FormatName], Path]) -> None:
    with (
        hurting(signal.SIGABRT, times=2) as hurt,
        pytest.raises(StartCrashed, match=r"Triton crashed as it started \(SIGABRT\) \(log: "),
    ):
        Triton(repositories("onnx"), models=["motion"], **ANY_PORTS).start()
    assert len(hurt) == 2
    assert not {process.group for process in find_servers()} & set(hurt)


@pytest.mark.long
def test_a_server_that_was_killed_is_not_started_again(repositories: Callable[[FormatName], Path]) -> None:
    with hurting(signal.SIGKILL, times=1), pytest.raises(ServerStartError, match=r"ended by itself \(SIGKILL\)"):
        Triton(repositories("onnx"), models=["motion"], **ANY_PORTS).start()
