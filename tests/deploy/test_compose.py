"""The whole stack in a real Docker engine: `make test-compose`.

Takes some minutes and root, so it runs only when CLIPSERVE_COMPOSE is set. Leaves no container, image, volume or
network of its own behind; an engine that was not running before does not run afterwards.
"""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve import ServerUnavailable, Tls, VideoClassifier
from tests.deploy.certificates import SCRIPT
from tests.deploy.stack import FILES, KILL_DECODE_STEP, Stack
from tests.watching import HANG_SECONDS

pytestmark = pytest.mark.skipif(not os.environ.get("CLIPSERVE_COMPOSE"), reason="make test-compose runs it")


@pytest.fixture(scope="module")
def scaled(stack: Stack) -> Stack:
    """One server, two replicas, the proxy and Prometheus, all healthy."""
    services = ("server", "replica", "proxy", "prometheus")
    stack.compose("--profile", "scale", "--profile", "monitoring", "up", "-d", "--wait", *services)
    return stack


@pytest.mark.parametrize("files", [[FILES[0]], FILES[:2], [FILES[0], "docker-compose.http.yml"], FILES])
def test_every_combination_of_files_is_valid(stack, files):
    stack.compose("--profile", "*", "config", "--quiet", COMPOSE_FILE=os.pathsep.join(files))


def test_without_a_gpu_nothing_asks_for_one(stack):
    config = json.loads(stack.compose("--profile", "*", "config", "--format", "json").stdout)
    reserving = [name for name, what in config["services"].items() if "nvidia" in json.dumps(what.get("deploy", {}))]
    assert reserving == []


class TestCheck:
    def test_says_that_the_server_would_start(self, stack):
        assert "ready to serve motion" in stack.compose("run", "--rm", "check").stdout

    @pytest.mark.parametrize(
        ("variables", "says"),
        [
            ({"CLIPSERVE_MODELS": "x3d_m"}, "'x3d_m', but the repository has motion"),
            ({"CLIPSERVE_TLS": "mutual"}, "server.pem is missing"),
            ({"CLIPSERVE_SHM_SIZE": "64m"}, "shared memory is 64 MiB, but"),
            ({"CLIPSERVE_EXIT_SECONDS": "7"}, "Raise CLIPSERVE_EXIT_SECONDS, or lower CLIPSERVE_DRAIN_SECONDS"),
        ],
    )
    def test_says_what_is_wrong(self, stack, variables, says):
        done = stack.compose("run", "--rm", "check", check=False, **variables)
        assert done.returncode == 1
        assert says in done.stderr

    def test_says_that_there_is_no_driver(self, stack):
        if Path("/proc/driver/nvidia/version").exists():
            pytest.skip("this machine has one")
        done = stack.compose("run", "--rm", "-e", "CLIPSERVE_GPU=required", "check", check=False)
        assert "no NVIDIA driver on this host" in done.stderr

    def test_says_which_port_is_taken(self, scaled):
        done = scaled.compose("run", "--rm", "check", check=False)
        assert f"127.0.0.1:{scaled.ports['PORT']} cannot be used for gRPC" in done.stderr


def test_a_client_in_another_container_classifies_a_video(scaled):
    done = scaled.compose("run", "--rm", "client", "classify", "--model", "motion", "--json", "bouncing.mp4")
    assert "bouncing" in done.stdout.splitlines()[0]


def test_the_server_can_write_nothing_and_has_no_privilege(scaled):
    probe = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /opt/x /models/x /run/clipserve/secrets/x"
    done = scaled.compose("exec", "server", "sh", "-c", probe, check=False)
    assert done.stdout.split() == ["1000", "CapEff:", "0000000000000000", "NoNewPrivs:", "1"]
    assert done.stderr.count("Read-only file system") == 3


def test_only_loopback_is_listened_on(scaled):
    bound = [scaled.inspect(name, "{{json .NetworkSettings.Ports}}") for name in ("server", "proxy", "prometheus")]
    hosts = {entry["HostIp"] for ports in bound for entries in json.loads(ports).values() for entry in entries or []}
    assert hosts == {"127.0.0.1"}


def test_the_operator_reloads_a_model_from_inside(scaled):
    done = scaled.compose("exec", "server", "python3", "-m", "clipserve_container.reload")
    assert done.stdout.splitlines() == ["motion_net: loaded", "motion: loaded"]


class Load:
    """Four clients that classify through the proxy until told to stop; no answer may be missing."""

    def __init__(self, stack: Stack, video: Path, *, retry: bool) -> None:
        self._classifier = VideoClassifier("motion", f"127.0.0.1:{stack.ports['PROXY_PORT']}")
        self._video, self._retry, self._stop = video.read_bytes(), retry, False
        self._pool = ThreadPoolExecutor(4)
        self.answers: list[str] = []

    def __enter__(self) -> "Load":
        self._clients = [self._pool.submit(self._work) for _ in range(4)]
        self.wait_for_more(40)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._pool.shutdown()
        self._classifier.close()

    def wait_for_more(self, answers: int) -> None:
        """Until so many more are there."""
        enough = len(self.answers) + answers
        deadline = time.monotonic() + 60
        while len(self.answers) < enough and time.monotonic() < deadline:
            time.sleep(0.05)

    def finish(self) -> None:
        """Raises what a client got instead of an answer."""
        self._stop = True
        for client in self._clients:
            client.result(60)

    def _work(self) -> None:
        while not self._stop:
            self.answers.append(self._classifier.classify(self._video, retry=self._retry).top.label)


def test_a_triton_killed_under_load_loses_no_request_and_comes_back(scaled, bouncing):
    with Load(scaled, bouncing, retry=True) as load:
        os.kill(int(scaled.inspect("replica", "{{.State.Pid}}")), signal.SIGKILL)
        load.wait_for_more(100)
        load.finish()
    assert set(load.answers) == {"bouncing"}
    assert wait_until(lambda: scaled.inspect("replica", "{{.RestartCount}} {{.State.Health.Status}}") == "1 healthy")


def test_a_triton_stopped_under_load_is_not_noticed_by_clients_that_never_retry(scaled, bouncing):
    with Load(scaled, bouncing, retry=False) as load:
        replica = scaled.container("replica")
        scaled.docker("stop", replica)
        assert scaled.docker("inspect", "--format", "{{.State.ExitCode}}", replica) == "0"
        load.wait_for_more(100)
        load.finish()
        scaled.docker("start", replica)
    assert set(load.answers) == {"bouncing"}


def test_a_model_whose_process_died_gets_its_server_started_anew(scaled):
    scaled.compose("exec", "server", "python3", "-c", KILL_DECODE_STEP)
    assert wait_until(lambda: scaled.inspect("server", "{{.RestartCount}} {{.State.Health.Status}}") == "1 healthy")


def test_prometheus_sees_every_triton_and_the_proxy(scaled):
    address = f"http://127.0.0.1:{scaled.ports['PROMETHEUS_PORT']}/api/v1/query?"

    def ask(query: str) -> dict[str, float]:
        with urllib.request.urlopen(address + urllib.parse.urlencode({"query": query}), timeout=HANG_SECONDS) as answer:
            results = json.load(answer)["data"]["result"]
        return {json.dumps(result["metric"], sort_keys=True): float(result["value"][1]) for result in results}

    assert wait_until(lambda: sorted(ask("count by (job) (up == 1)").values()) == [1, 1, 3, 3])
    assert wait_until(lambda: sum(ask('clipserve_model_ready{model="motion"}').values()) == 3)
    assert sum(ask('nv_inference_request_success{model="motion"}').values()) > 0
    assert wait_until(lambda: sum(ask("haproxy_backend_active_servers").values()) == 3)


def test_the_page_of_the_demo_is_served(scaled):
    scaled.compose("build", "demo")
    scaled.compose("--profile", "demo", "up", "-d", "--wait", "demo")
    with urllib.request.urlopen(f"http://127.0.0.1:{scaled.ports['DEMO_PORT']}/config", timeout=HANG_SECONDS) as answer:
        assert "motion" in answer.read().decode()


def test_with_mutual_tls_the_proxy_serves_certified_clients_and_lets_nobody_rule(scaled, bouncing):
    # Beside the repository, since the containers' user must reach it.
    secrets = scaled.repository.parent / "secrets"
    done = subprocess.run([SCRIPT, "--folder", secrets, "--client", "alice"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    variables = {"CLIPSERVE_TLS": "mutual", "CLIPSERVE_REPLICAS": "1"}
    scaled.compose("--profile", "scale", "up", "-d", "--wait", "server", "replica", "proxy", **variables)
    alice = secrets / "clients" / "alice"
    tls = Tls(alice / "ca.pem", alice / "client.key", alice / "client.pem")
    for name in ("PROXY_PORT", "PORT"):
        with VideoClassifier("motion", f"localhost:{scaled.ports[name]}", tls=tls) as classifier:
            assert classifier.classify(bouncing).top.label == "bouncing"
        stranger = VideoClassifier("motion", f"localhost:{scaled.ports[name]}", tls=Tls(alice / "ca.pem"))
        with stranger, pytest.raises(ServerUnavailable):
            stranger.classify(bouncing, timeout_seconds=HANG_SECONDS)
    # The containers of clients show the certificate of the one they are named.
    variables["CLIPSERVE_CLIENT"] = "alice"
    ask = ("run", "--rm", "--no-deps", "client", "classify", "--model", "motion", "--json", "bouncing.mp4")
    assert "bouncing" in scaled.compose(*ask, **variables).stdout
    scaled.compose("--profile", "demo", "up", "-d", "--wait", "--no-deps", "demo", **variables)
    with urllib.request.urlopen(f"http://127.0.0.1:{scaled.ports['DEMO_PORT']}/config", timeout=HANG_SECONDS) as answer:
        assert "motion" in answer.read().decode()
    with triton_grpc.InferenceServerClient(
        f"localhost:{scaled.ports['PROXY_PORT']}", creds=tls.credentials()
    ) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.unload_model("motion")
        assert refused.value.status() == "StatusCode.PERMISSION_DENIED"


def test_the_exporter_fills_the_repository(stack, exporter):
    shutil.rmtree(stack.repository / "motion_net" / "1")
    done = stack.compose("run", "--rm", "export", "motion", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (stack.repository / "motion_net" / "1" / "model.onnx").stat().st_uid == 1000


def wait_until(holds, seconds=90):
    """Whether it holds before so many seconds are over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.5)
    return False
