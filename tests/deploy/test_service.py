"""The process around Triton: when it says ready, how it stops, and what it does about a model that died."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from clipserve import VideoClassifier
from clipserve.errors import ServerError
from clipserve_container import readiness
from clipserve_container.local_http import find_problem
from clipserve_container.readiness import Readiness, find_stubs
from tests.deploy.embedded import EmbeddedServer
from tests.deploy.running_service import RunningService
from tests.ports import find_free_ports
from tests.watching import HANG_SECONDS, NEVER_SECONDS

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "deploy" / "server")])}


@pytest.fixture
def running(onnx_repository, tmp_path):
    service = RunningService(onnx_repository, tmp_path)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()


def test_requests_that_were_taken_are_answered_before_the_server_stops(running, slow_video):
    """Although they take longer than DRAIN_SECONDS; what comes later is refused before it is begun."""

    def classify() -> str:
        try:
            return classifier.classify(slow_video).top.label
        except ServerError as error:
            return "refused" if "the server is stopping; try again later" in str(error) else str(error)

    with VideoClassifier("motion", running.server.grpc_url) as classifier, ThreadPoolExecutor(7) as pool:
        expected = classifier.classify(slow_video).top.label
        worker = find_worker(running)
        worker.suspend()  # it is not done before the server stops
        answers = [pool.submit(classify) for _ in range(6)]
        # One is taken, at least; the others may be on their way to the server still.
        wait_for(lambda: count_waiting(running.server), lambda waiting: waiting > 0)
        running.process.send_signal(signal.SIGTERM)
        assert wait_for(lambda: running.get("/ready")[0], lambda status: status == 503)
        wait_for(lambda: running.log, lambda log: "accepts no more requests" in log)
        assert not all(answer.done() for answer in answers), "too little to do for this test"
        late = pool.submit(classify)
        worker.resume()
        outcomes = [answer.result() for answer in answers]
        assert set(outcomes) <= {expected, "refused"}
        assert expected in outcomes
        assert late.result() in {"refused", expected}
    assert running.process.wait(HANG_SECONDS) == 0


def test_a_model_whose_process_died_is_noticed_and_triton_ended(running):
    assert set(json.loads(running.get("/ready")[1])) == {"ready", "problems"}
    metrics = running.get("/metrics")[1]
    assert 'clipserve_model_ready{model="decode"} 1' in metrics
    assert "\nclipserve_certificate_expiry_timestamp_seconds " in metrics
    os.kill(find_stub(running, "decode"), signal.SIGKILL)
    # The watch ends Triton soon after: on a busy machine the port may not answer in between.
    wait_for(lambda: running.get("/ready")[0], lambda status: status != 200)
    running.process.wait(HANG_SECONDS)
    assert "not ready, 1 times in a row: decode: its process died" in running.log
    assert "ends Triton, so that it is restarted" in running.log


def test_a_triton_that_is_killed_ends_the_container_with_its_signal(running):
    (triton,) = find_children(running.process.pid)
    os.kill(triton, signal.SIGKILL)
    assert running.process.wait(HANG_SECONDS) == 128 + signal.SIGKILL


@pytest.mark.long
def test_a_triton_that_is_stuck_as_it_starts_is_ended(onnx_repository, tmp_path):
    service = RunningService(onnx_repository, tmp_path, command=["/bin/sh", "-c", "kill -STOP $$"], stuck_seconds=1.0)
    try:
        assert service.process.wait(HANG_SECONDS) == 128 + signal.SIGKILL
        assert "Triton got stuck as it started: idle for 1 s; ends it for a new start" in service.log
    finally:
        service.stop()


# In a process of its own, which has no other children.
COMPUTING_AND_STOPPED = """
import os, signal, subprocess, sys, time
from clipserve_host.processes import processes_of
from clipserve_container.start_activity import STUCK_CPU_SECONDS, StartActivity

activity = StartActivity(stuck_seconds=2.0)
with subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) as child:
    while sum(process.cpu_seconds for process in processes_of(os.getpid())) < STUCK_CPU_SECONDS + 0.1:
        time.sleep(0.1)
    print(activity.is_stuck())
    child.send_signal(signal.SIGSTOP)
    time.sleep(2.1)
    print(activity.is_stuck())
    child.kill()
"""


@pytest.mark.long
def test_a_triton_that_computes_is_not_stuck():
    done = subprocess.run(
        [sys.executable, "-c", COMPUTING_AND_STOPPED],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=HANG_SECONDS,
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_before_the_models_are_loaded_the_answer_is_no(onnx_repository, tmp_path):
    service = RunningService(onnx_repository, tmp_path, command=["/bin/sleep", f"{NEVER_SECONDS}"])
    try:
        status, body = wait_for(lambda: service.get("/ready"), lambda answer: answer[0] != 0)
        assert status == 503
        assert "motion_net" in body
    finally:
        service.stop()


def test_only_living_processes_of_this_repository_are_models(tmp_path):
    for number, arguments in enumerate(
        [
            ["/opt/triton_python_backend_stub", "/models/decode/1/model.py", "shm"],
            ["/opt/triton_python_backend_stub", "/elsewhere/other/1/model.py", "shm"],
            ["python3", "/models/motion_net/1/model.py"],
            [],  # a process that died and is not waited for
        ]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_text("\0".join(arguments))
    (tmp_path / "9").mkdir()
    (tmp_path / "9" / "cmdline").write_bytes(b"/usr/bin/tail\0caf\xe9.log\0")  # not UTF-8
    assert find_stubs(Path("/models"), tmp_path) == {"decode"}


def test_a_triton_that_hangs_is_asked_once_and_not_for_each_model(tmp_path, monkeypatch):
    monkeypatch.setattr(readiness, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert Readiness(url, ["decode", "motion"], tmp_path).check() == {"decode": "timed out", "motion": "timed out"}
        listener.setblocking(False)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_watch_goes_on_after_a_check_that_failed(tmp_path):
    (port,) = find_free_ports(1)
    said, log = "cannot check the models (ValueError: ", tmp_path / "log"
    given = {
        "command": ["/bin/sh", "-c", f"until [ $(grep -cF '{said}' {log}) -ge 2 ]; do sleep 0.1; done"],
        "url": "no address",  # urllib raises ValueError
        "names": ["motion"],
        "repository": str(tmp_path),
        "ready_port": port,
        "in_flight": str(tmp_path / "in_flight"),
        "stuck_seconds": NEVER_SECONDS,
    }
    command = [sys.executable, "-m", "tests.deploy.running_service", json.dumps(given)]
    with log.open("wb") as stderr:
        assert subprocess.run(command, stderr=stderr, env=ENVIRONMENT, timeout=HANG_SECONDS).returncode == 0


NO_HTTP = [b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", b""]


@pytest.mark.parametrize("answer", NO_HTTP, ids=["no status", "too many headers", "nothing"])
def test_an_answer_that_is_no_http_is_a_problem_and_no_exception(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        served = pool.submit(serve)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/v2/models/motion/ready"
        problem = find_problem(address, timeout=HANG_SECONDS)
        served.result(HANG_SECONDS)
    assert problem


def wait_for(look, enough, *, seconds=HANG_SECONDS):
    """Look until the answer is enough; returns it."""
    deadline = time.monotonic() + seconds
    while not enough(answer := look()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def count_waiting(server: EmbeddedServer) -> float:
    """Videos that wait for a decoder."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports['metrics']}/metrics", timeout=HANG_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("clipserve_decode_waiting "))


def find_worker(running: RunningService) -> psutil.Process:
    """The process that decodes videos."""
    others = psutil.Process(running.process.pid).children(recursive=True)
    (worker,) = (process for process in others if "decode_pool.worker" in process.cmdline())
    return worker


def find_children(pid: int) -> list[int]:
    """Processes that this one started."""
    return [child.pid for child in psutil.Process(pid).children()]


def find_stub(running: RunningService, model: str) -> int:
    """The process of a Python model of this very server."""
    (triton,) = find_children(running.process.pid)
    (pid,) = (pid for pid in find_children(triton) if f"/{model}/1/" in Path(f"/proc/{pid}/cmdline").read_text())
    return pid
