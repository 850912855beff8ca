"""`clipserve serve` and its context manager serve, end on signals, and leave no process or file behind."""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from clipserve import VideoClassifier
from clipserve.errors import ServerError
from clipserve_server.guard import shm_prefix
from clipserve_server.triton import STOP_SECONDS, Triton
from tests.interrupts import interruptible
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.watching import HANG_SECONDS, processes_naming, read_metric, server_of, wait_for

STARTED_SECONDS, STOPPED_SECONDS = 60, 40
# They end the server as SIGTERM does.
LONG_INTERRUPT, LONG_HANGUP = (
    pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGHUP)
)
PROCESSORS = len(os.sched_getaffinity(0))  # as many decoders


def traces_of(names: tuple[str, ...]) -> set[Path]:
    """Temporary folders and shared memory whose names begin so; hyphens of a folder are underscores of the memory.

    Of one server: others come and go on this machine meanwhile.
    """
    folders = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    found = {path for folder in folders for path in folder.glob("*clipserve*triton*")}
    return {path for path in found if path.name.replace("-", "_").startswith(names)}


class Serve:
    """`clipserve serve` in a process of its own."""

    def __init__(self, *arguments: str | Path, scratch: Path, program: Sequence[str] = ("-m", "clipserve")) -> None:
        self.scratch = scratch  # for all its temporary files
        # Everything it starts inherits this, whatever it calls itself.
        self.mark = f"clipserve-test-{os.getpid()}-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CLIPSERVE_TEST_MARK": self.mark, "TMPDIR": str(scratch)},
        )

    def wait_until_up(self, about: str = "gRPC") -> str:
        """The gRPC address it printed, or what it printed about something else."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(rf"{about} +(\S+)", line):
                return found[1]
        raise AssertionError(f"serve ended: {self.process.communicate()}")

    @property
    def family(self) -> list[int]:
        return processes_naming(self.mark)


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")

    def start(*arguments: str | Path, **options: Any) -> Serve:
        started.append(Serve(*arguments, *ports, scratch=tmp_path_factory.mktemp("scratch"), **options))
        return started[-1]

    yield start
    for each in started:
        each.process.terminate()
        wait_for(lambda each=each: not each.family, STOPPED_SECONDS)  # type: ignore[misc]
        for pid in each.family:
            os.kill(pid, signal.SIGKILL)
        each.process.communicate()


@pytest.mark.parametrize(
    "number", [LONG_INTERRUPT, LONG_HANGUP, signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_serving_ends_on_a_signal_and_leaves_no_process_behind(
    serve: Callable[..., Serve], exported: Path, number: signal.Signals, tmp_path: Path
) -> None:
    """Even kill -9, which nobody can catch: the server must not outlive the command."""
    server = serve("motion", "--repository", exported, "--log", tmp_path / "triton.log")
    with VideoClassifier("motion", url=server.wait_until_up()) as classifier:
        classifier.wait_until_ready(timeout_seconds=HANG_SECONDS)
    assert len(server.family) >= 4, "command, guard, tritonserver and stubs"
    names = tuple(shm_prefix(path) for path in server.scratch.iterdir())
    assert traces_of(names)
    server.process.send_signal(number)
    assert server.process.wait(STOPPED_SECONDS) == (-9 if number == signal.SIGKILL else 0)
    assert wait_for(lambda: not server.family, STOPPED_SECONDS)
    assert wait_for(lambda: not (traces_of(names) or list(server.scratch.iterdir())), STOPPED_SECONDS)


@pytest.mark.parametrize("number", [LONG_INTERRUPT, signal.SIGTERM])
def test_requests_in_flight_are_answered_before_serving_ends(
    serve: Callable[..., Serve], exported: Path, number: signal.Signals, slow_video: Path
) -> None:
    """Triton alone refuses what is being decoded: the next step of its ensemble."""
    server, crowd = serve("motion", "--repository", exported), 3 * PROCESSORS
    url, metrics = server.wait_until_up(), server.wait_until_up("metrics")
    with VideoClassifier("motion", url=url) as classifier, ThreadPoolExecutor(crowd) as pool:
        expected = classifier.classify(slow_video).top.label

        def classify() -> str:
            try:
                return classifier.classify(slow_video).top.label
            except ServerError as error:
                return "refused" if "the server is stopping; try again later" in str(error) else str(error)

        answers = [pool.submit(classify) for _ in range(crowd)]
        assert wait_for(lambda: read_metric(metrics, "clipserve_decode_waiting") > 0)
        server.process.send_signal(number)
        outcomes = [answer.result() for answer in answers]
    # Those that had not reached the decode step are refused.
    assert set(outcomes) <= {expected, "refused"}
    assert expected in outcomes
    assert server.process.wait(STOPPED_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_early_as_python_hears_it_ends_the_program_without_a_traceback(
    number: signal.Signals, tmp_path: Path
) -> None:
    """While it imports one package or another."""
    interrupted = (
        *("clipserve.classifier", "grpc", "typer"),
        *("clipserve_server.command_line", "clipserve_server.triton", "numpy"),
    )
    code = """
import os, signal, sys
sys.argv = ["clipserve", "serve", "--repository", sys.argv[3]] + [
    part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")
]
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.orig_argv[-3]:
            os.kill(os.getpid(), int(sys.orig_argv[-2]))
sys.meta_path.insert(0, Interrupting())
from clipserve.command_line import main
main()
"""
    for name in interrupted:
        done = subprocess.run(
            interruptible([sys.executable, "-c", code, name, str(int(number)), tmp_path]),
            capture_output=True,
            text=True,
        )
        assert done.returncode in ((130,) if number == signal.SIGINT else (130, -number)), (name, done)
        assert len((done.stdout + done.stderr).splitlines()) <= 1, name


def test_a_signal_inside_a_constructor_while_models_load_is_one_line(exported: Path, tmp_path: Path) -> None:
    """The client of a starting Triton, interrupted in its constructor, would write an error in its __del__."""
    code = """
import os, signal, sys
from tritonclient.grpc import InferenceServerClient
construct = InferenceServerClient.__init__
def interrupted(*given, **named):
    os.kill(os.getpid(), signal.SIGTERM)
    construct(*given, **named)
InferenceServerClient.__init__ = interrupted
from clipserve.command_line import main
main()
"""
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "motion", "--repository", exported, *ports],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "stopped before the models were ready")
    assert list(tmp_path.iterdir()) == []


def test_kill_9_while_models_load_ends_them_at_once(
    serve: Callable[..., Serve], repository: Path, tmp_path: Path
) -> None:
    """No request is in flight. The decode step never finishes loading, and would ignore a request to stop."""
    (repository / "decode" / "1" / "model.py").write_text("import time\ntime.sleep(10 * 60)\n")
    log = tmp_path / "triton.log"
    server = serve("motion", "--repository", repository, "--log", log)
    assert wait_for(lambda: log.exists() and "loading: decode" in log.read_text(), STARTED_SECONDS)
    server.process.kill()
    assert wait_for(lambda: not server.family, STOP_SECONDS / 2)
    assert list(server.scratch.iterdir()) == []


def test_a_signal_while_models_load_stops_it_too(serve: Callable[..., Serve], repository: Path) -> None:
    model = repository / "decode" / "1" / "model.py"
    text = model.read_text()
    model.unlink()  # not in place: it may be a link to the original
    model.write_text(f"import time\ntime.sleep(5)\n{text}")  # not done before the signal, if this process is held up
    server = serve("motion", "--repository", repository)
    assert wait_for(lambda: len(server.family) >= 2, STARTED_SECONDS)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(STOPPED_SECONDS) == 130
    assert wait_for(lambda: not server.family, STOPPED_SECONDS)


def test_what_is_served_and_what_is_not_exported_is_said(serve: Callable[..., Serve], exported: Path) -> None:
    server = serve("--repository", exported)
    server_says = []
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server_says.append(line)
        if "Ctrl-C" in line:
            break
    text = "".join(server_says)
    assert "serving motion\n" in text
    assert "not exported yet:" in text
    assert "x3d_m" in text
    assert "/metrics" in text


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["[::1]", "::"])
def test_all_services_listen_on_an_address_of_ipv6(host: str, exported: Path) -> None:
    with KilledTriton(exported, models=["motion"], host=host, **ANY_PORTS) as triton:
        with InferenceServerClient(triton.grpc_url) as client:
            assert client.is_model_ready("motion")
        for address in (f"http://{triton.http_url}/v2/health/ready", triton.metrics_url):
            with urllib.request.urlopen(address, timeout=HANG_SECONDS) as answer:
                assert answer.status == 200


@pytest.mark.long
def test_two_servers_run_beside_each_other_and_shared_memory_is_given_back(exported: Path) -> None:
    with Triton(exported, **ANY_PORTS) as first, Triton(exported, **ANY_PORTS) as second:
        assert first.grpc_url != second.grpc_url
        names = tuple(shm_prefix(triton.folder) for triton in (first, second))
        for triton in (first, second):
            with VideoClassifier("motion", url=triton.grpc_url) as classifier:
                assert classifier.models() == ["motion"]
        assert traces_of(names)
    assert not traces_of(names)


def test_the_log_is_where_serve_says_and_goes_with_a_server_that_ends_well(
    serve: Callable[..., Serve], exported: Path
) -> None:
    server = serve("motion", "--repository", exported)
    log = Path(server.wait_until_up("log"))
    assert "Started GRPCInferenceService" in log.read_text()
    server.process.terminate()
    assert server.process.wait(STOPPED_SECONDS) == 0
    assert not log.exists()


def test_the_log_stays_when_triton_ends_by_itself_and_its_place_is_told_again(
    serve: Callable[..., Serve], exported: Path
) -> None:
    server = serve("motion", "--repository", exported)
    log = Path(server.wait_until_up("log"))
    try:
        (triton,) = (pid for pid in server.family if Path(f"/proc/{pid}/comm").read_text() == "tritonserver\n")
        os.kill(triton, signal.SIGKILL)
        _, said = server.process.communicate(timeout=STOPPED_SECONDS)
        assert server.process.returncode == 1
        # Not what the log ends with, which is about something else.
        assert said.splitlines()[-1] == f"Triton ended by itself (SIGKILL) (log: {log})"
        assert "Started GRPCInferenceService" in log.read_text()
    finally:
        log.unlink()


@pytest.mark.long
def test_a_program_with_many_open_files_ends_a_triton_that_was_killed(exported: Path, tmp_path: Path) -> None:
    """Its files have numbers that select() does not take."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("this user may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    try:
        with ExitStack() as files:
            for _ in range(1024):
                files.enter_context(Path(os.devnull).open())
            triton = Triton(exported, models=["motion"], log=tmp_path / "triton.log", **ANY_PORTS)
            triton.start()
            server_of(triton).kill()
            assert wait_for(triton.find_failure)
            triton.stop()
            assert triton.find_failure() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Looks without a pause whether Triton serves, and does not count for how long it has.
EAGER = (
    "from clipserve_server import command_line; command_line.LOOK_SECONDS = command_line.STABLE_SECONDS = 0.0;"
    "from clipserve.command_line import main; main()"
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("process", "said"),
    [
        (r"^[^\0]+/bin/tritonserver\0", r"Triton ended by itself \(SIGKILL\)"),
        (
            r"^[^\0]+/triton_python_backend_stub\0",
            r"(a process of Triton's Python backend died|Triton ended by itself \(SIG\w+\))",
        ),
        (r"\0clipserve_server.guard\0", r"Triton ended by itself \(SIGKILL\)"),
    ],
)
def test_what_dies_is_started_again_at_the_same_address(
    serve: Callable[..., Serve], exported: Path, slow_video: Path, process: str, said: str
) -> None:
    server = serve("motion", "--repository", exported, program=("-c", EAGER))
    url = server.wait_until_up()
    with VideoClassifier("motion", url) as classifier:
        label = classifier.classify(slow_video).top.label
        for _ in range(2):
            killed = [pid for pid in server.family if re.search(process, Path(f"/proc/{pid}/cmdline").read_text())]
            assert killed
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert server.wait_until_up("serving again; log")
            assert classifier.classify(slow_video, retry=True).top.label == label
            assert not set(killed) & set(server.family)
    server.process.terminate()
    _, errors = server.process.communicate(timeout=STOPPED_SECONDS)
    assert server.process.returncode == 0
    assert len(re.findall(rf"{said} \(log: \S+\); starting Triton again", errors)) == 2


@pytest.mark.long
def test_a_model_that_is_reloaded_is_no_failure(serve: Callable[..., Serve], repository: Path) -> None:
    """Triton ends its process, which is dead for an instant."""
    server = serve("motion", "--repository", repository, program=("-c", EAGER))
    with InferenceServerClient(server.wait_until_up()) as client:
        before = set(server.family)
        for turn in range(10):
            with (repository / "motion_net" / "config.pbtxt").open("a") as config:
                config.write(f'parameters {{ key: "turn{turn}" value: {{ string_value: "" }} }}\n')
            client.load_model("motion_net")
    assert set(server.family) != before
    server.process.terminate()
    _, errors = server.process.communicate(timeout=STOPPED_SECONDS)
    assert (server.process.returncode, errors) == (0, "")


@pytest.mark.long
def test_a_log_that_was_asked_for_is_appended_to_and_stays(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("of an earlier start\n")
    with Triton(exported, log=path, **ANY_PORTS) as triton:
        assert triton.log_path == path
        # The decode step is told, so that its errors about a worker that died can name it.
        assert processes_naming(f"CLIPSERVE_LOG={path}")
    text = path.read_text()
    assert text.startswith("of an earlier start\n")
    assert "Started GRPCInferenceService" in text
