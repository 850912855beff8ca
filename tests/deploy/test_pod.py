"""The chart's pods in a real Docker engine, started, asked and ended as a kubelet does: `make test-compose`."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clipserve import AccessDenied, ServerUnavailable, Tls, VideoClassifier
from tests.deploy.certificates import SCRIPT
from tests.deploy.cluster_service import PROPAGATION_SECONDS, ClusterService
from tests.deploy.engine import run
from tests.deploy.helm import pods_of
from tests.deploy.pod import Pod
from tests.deploy.stack import KILL_DECODE_STEP, Stack
from tests.watching import HANG_SECONDS, wait_for

pytestmark = pytest.mark.skipif(not os.environ.get("CLIPSERVE_COMPOSE"), reason="make test-compose runs it")

CLIENTS = 4
# As on a cluster, only faster.
COMING_AND_GOING = {
    "connections": {"ageSeconds": 5},
    "drain": {"preStopSeconds": 2, "seconds": 8, "exitSeconds": 24},
    "server": {"watchSeconds": 2},
}


def values_for(stack: Stack, **more: Any) -> dict[str, Any]:
    """For two cores without a GPU, with the image that compose built."""
    return {
        "image": {"tag": stack.environment["CLIPSERVE_TAG"]},
        "models": ["motion"],
        "resources": {"gpus": 0, "cpu": 2, "memory": "4Gi"},
        "placement": {"tolerations": []},
        **COMING_AND_GOING,
        **more,
    }


@pytest.fixture
def start(stack: Stack, render: Callable[..., list[Any]]) -> Iterator[Callable[..., Pod]]:
    """Start a pod of the chart with these values; kserve=True: of its ServingRuntime."""
    pods: list[Pod] = []
    storage = {"clipserve-models": stack.repository, "secrets": stack.repository.parent / "pod-secrets"}
    storage["secrets"].mkdir(exist_ok=True)

    def start(folders: dict[str, Path] | None = None, **values: Any) -> Pod:
        objects = render(values_for(stack, **values))
        wanted = "ServingRuntime/clipserve" if "kserve" in values else "Deployment/clipserve"
        spec = dict(pods_of(objects))[wanted]
        if "kserve" in values:  # which mounts pvc://... itself
            claim = {"name": "pvc", "persistentVolumeClaim": {"claimName": "clipserve-models"}}
            spec["volumes"].append(claim)
            spec["containers"][0]["volumeMounts"].append({"name": "pvc", "mountPath": "/mnt/models", "readOnly": True})
        name = f"clipserve-pod-{os.getpid()}-{len(pods)}"
        pods.append(Pod(stack.environment, name, spec, {**storage, **(folders or {})}))
        pods[-1].start()
        return pods[-1]

    yield start
    for pod in pods:
        pod.remove()
    shutil.rmtree(storage["secrets"])


def url_of(pod: Pod, port: str = "grpc") -> str:
    """Of its gRPC port."""
    return "{}:{}".format(*pod.address(port))


def classify(pod: Pod, video: Path, port: str = "grpc", **options: Any) -> str:
    """The label that it gives a video."""
    with VideoClassifier("motion", url_of(pod, port), **options) as classifier:
        return classifier.classify(video).top.label


def test_a_pod_serves_with_nothing_to_write_and_no_privilege(start: Callable[..., Pod], bouncing: Path) -> None:
    pod = start()
    pod.wait_until_ready()
    assert classify(pod, bouncing) == "bouncing"
    assert wait_for(lambda: pod.probe(pod.container["livenessProbe"]))
    probe = "id -u; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /opt/x /models/x; df -m /dev/shm"
    words = pod.docker("exec", pod.name, "sh", "-c", probe, check=False).split()
    assert words[:7] == ["1000", "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert " ".join(words).count("Read-only file system") == 2
    # 64 + (64 + 2 cores) x (8 + 12): what the chart computed, and the server's own check let through.
    assert "1384" in words
    status, seconds = pod.terminate()
    assert status == 0
    # Nothing was under way, so that Triton needs none of its 30 s.
    assert 10 <= seconds < 40


def test_a_dead_model_fails_the_probes(start: Callable[..., Pod]) -> None:
    pod = start(server={"watchSeconds": 2, "restartAfter": 100})  # not soon
    pod.wait_until_ready()
    pod.docker("exec", pod.name, "python3", "-c", KILL_DECODE_STEP)
    assert wait_for(lambda: not pod.probe(pod.container["readinessProbe"]))
    assert wait_for(lambda: not pod.probe(pod.container["livenessProbe"]))


class Load:
    """Clients that never try again, one for each address, until told to stop."""

    def __init__(self, urls: list[str], video: Path) -> None:
        self._urls, self._video, self._stop = urls, video.read_bytes(), False
        self._pool = ThreadPoolExecutor(len(urls))
        self.answers: list[str] = []

    def __enter__(self) -> "Load":
        self._clients = [self._pool.submit(self._work, url) for url in self._urls]
        self.wait_for_more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._pool.shutdown()

    def wait_for_more(self, answers: int) -> None:
        """Until so many more are there, or a client has failed."""
        enough, deadline = len(self.answers) + answers, time.monotonic() + 60
        while len(self.answers) < enough and time.monotonic() < deadline:
            if any(client.done() for client in self._clients):
                return
            time.sleep(0.05)

    def finish(self) -> None:
        """Raises what a client got instead of an answer."""
        self._stop = True
        for client in self._clients:
            client.result(60)

    def _work(self, url: str) -> None:
        with VideoClassifier("motion", url) as classifier:
            while not self._stop:
                self.answers.append(classifier.classify(self._video, retry=False).top.label)


def test_a_rolling_update_loses_no_request_of_clients_that_never_try_again(
    start: Callable[..., Pod], bouncing: Path
) -> None:
    old = [start(), start()]
    for pod in old:
        pod.wait_until_ready()
    with ClusterService(CLIENTS) as service:
        service.endpoints = [pod.address("grpc") for pod in old]
        # The last client balances itself, over the pods that there are at first.
        fleet = ",".join(url_of(pod) for pod in old)
        with Load([*service.urls, fleet], bouncing) as load:
            assert {*service.connections} == {pod.address("grpc") for pod in old}
            # What a Deployment does with maxSurge 1 and maxUnavailable 0.
            new = start()
            new.wait_until_ready()
            service.endpoints.append(new.address("grpc"))
            leaving = old[0].address("grpc")
            with ThreadPoolExecutor(1) as kubelet:
                ended = kubelet.submit(old[0].terminate)
                time.sleep(PROPAGATION_SECONDS)
                service.endpoints.remove(leaving)
                status, seconds = ended.result(60)
            load.wait_for_more(40)
            load.finish()
        assert set(load.answers) == {"bouncing"}
        assert status == 0
        assert seconds < old[0].spec["terminationGracePeriodSeconds"] - 2, "ended by force"
        # No client stays with a pod: each has connected anew, and the new pod has its part.
        assert len(service.connections) > CLIENTS
        assert new.address("grpc") in service.connections


def test_certificates_and_keys_come_from_secrets(start: Callable[..., Pod], stack: Stack, bouncing: Path) -> None:
    folder = stack.repository.parent / "pod-certificates"
    run(SCRIPT, "--folder", folder, "--client", "alice")
    secret = folder / "secret"
    secret.mkdir()
    # As `kubectl create secret` and cert-manager name them.
    for name, file in {"tls.crt": "server.pem", "tls.key": "server.key", "ca.crt": "ca.pem"}.items():
        shutil.copy(folder / "server" / file, secret / name)
    for name in ("admin_key", "api_key"):
        (secret / name).write_text(f"the-{name}-of-this-test")
    pod = start(
        {"tls": secret, "keys": secret},
        tls={"mode": "mutual", "secret": "tls"},
        keys={"adminSecret": "keys", "apiSecret": "keys"},
    )
    pod.wait_until_ready()
    alice = folder / "clients" / "alice"
    tls = Tls(alice / "ca.pem", alice / "client.key", alice / "client.pem")
    url = url_of(pod).replace("127.0.0.1", "localhost")
    headers = {"triton-grpc-protocol-clipserve-api": "the-api_key-of-this-test"}
    with VideoClassifier("motion", url, tls=tls, headers=headers) as classifier:
        assert classifier.classify(bouncing).top.label == "bouncing"
    with VideoClassifier("motion", url, tls=tls) as classifier, pytest.raises(AccessDenied):
        classifier.classify(bouncing)
    stranger = VideoClassifier("motion", url, tls=Tls(alice / "ca.pem"), headers=headers)
    with stranger, pytest.raises(ServerUnavailable):
        stranger.classify(bouncing, timeout_seconds=HANG_SECONDS)


def find_done_file(pod: dict[str, Any]) -> str:
    """The name of the file in the models' folder that says that the export is done."""
    found = re.search(r"/models/(\.exported-\w+)", str(pod))
    assert found is not None
    return found[1]


def test_servers_wait_for_the_export_job_and_say_why(
    start: Callable[..., Pod], stack: Stack, render: Callable[..., list[Any]], bouncing: Path
) -> None:
    export = {"enabled": True, "models": ["motion"]}
    done = find_done_file(dict(pods_of(render(values_for(stack, export=export))))["Deployment/clipserve"])
    models = stack.repository.parent / "pod-models"
    shutil.copytree(stack.repository, models)
    shutil.rmtree(models / "motion_net" / "1")
    run("chmod", "-R", "a+rX", models)
    with ThreadPoolExecutor(1) as kubelet:
        started = kubelet.submit(start, {"clipserve-models": models}, export=export)
        deadline = time.monotonic() + 60
        log = ""
        while "the export Job is not done yet" not in log and time.monotonic() < deadline:
            for name in stack.docker("ps", "--format", "{{.ID}} {{.Command}}", "--no-trunc").splitlines():
                if f"until [ -e /models/{done} ]" in name:
                    log = run("docker", "logs", name.split()[0], check=False, env=stack.environment).stderr
            time.sleep(0.2)
        assert "the export Job is not done yet" in log
        assert not started.done()
        shutil.copytree(stack.repository / "motion_net" / "1", models / "motion_net" / "1")
        time.sleep(6)  # it looks every 5 s
        assert not started.done()  # the Job may have more to export
        (models / done).touch()
        pod = started.result(60)
    pod.wait_until_ready()
    assert classify(pod, bouncing) == "bouncing"


@pytest.mark.usefixtures("exporter")
def test_the_export_job_fills_the_claim(stack: Stack, render: Callable[..., list[Any]]) -> None:
    models = stack.repository.parent / "job-models"
    models.mkdir()
    run("chown", "1000:1000", models)
    values = values_for(stack, export={"enabled": True, "models": ["motion"]})
    values["resources"]["tools"] = {"cpu": 2, "memory": "4Gi"}
    (spec,) = (pod for name, pod in pods_of(render(values)) if name.startswith("Job/"))
    Pod(stack.environment, f"clipserve-job-{os.getpid()}", spec, {"clipserve-models": models}).run()
    # With the decode step and the configs: all that a server needs.
    assert {path.name for path in models.iterdir()} >= {"decode", "motion", "motion_net"}
    assert (models / "motion_net" / "1" / "model.onnx").stat().st_uid == 1000
    assert (models / find_done_file(spec)).exists()


def test_the_container_of_kserve_serves_what_the_storage_initializer_brought(
    start: Callable[..., Pod], stack: Stack, bouncing: Path
) -> None:
    pod = start(kserve={"enabled": True, "storageUri": "pvc://clipserve-models"})
    pod.wait_until_ready()
    assert classify(pod, bouncing, "h2c") == "bouncing"
    assert pod.terminate()[0] == 0
