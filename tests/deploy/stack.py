"""The images of compose, built in a real Docker engine, and a compose project of the tests' own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.bases import BASES, RELEASE, SLIM, build_bases, torch_index
from tests.deploy.engine import NoEngine, docker_engine, run
from tests.ports import find_free_ports

ROOT = Path(__file__).parents[2]
FILES = ["docker-compose.yml", "docker-compose.cpu.yml", "tests/deploy/docker-compose.test.yml"]
PORTS = ("PORT", "METRICS_PORT", "PROXY_PORT", "PROMETHEUS_PORT", "DEMO_PORT")
# For a Python inside the server's container.
KILL_DECODE_STEP = """
import glob, os
for path in glob.glob('/proc/[0-9]*/cmdline'):
    try:
        words = open(path).read().split(chr(0))
    except OSError:
        continue  # it has ended
    if words[0].endswith('triton_python_backend_stub') and '/decode/' in words[1]:
        os.kill(int(path.split('/')[2]), 9)
"""


class Stack:
    """A compose project of this test's own."""

    def __init__(self, environment: dict[str, str], repository: Path, videos: Path) -> None:
        self.ports = dict(zip(PORTS, find_free_ports(len(PORTS)), strict=True))
        self.repository = repository
        self.environment = {
            **environment,
            "COMPOSE_PROJECT_NAME": f"clipserve-test-{os.getpid()}",
            "COMPOSE_FILE": os.pathsep.join(FILES),
            "COMPOSE_PROFILES": "",
            "CLIPSERVE_RELEASE": RELEASE,
            "CLIPSERVE_TAG": f"test-{os.getpid()}",
            "CLIPSERVE_PYTHON_IMAGE": SLIM,
            "CLIPSERVE_HAPROXY_IMAGE": "clipserve-test/haproxy",
            "CLIPSERVE_PROMETHEUS_IMAGE": "clipserve-test/prometheus",
            "CLIPSERVE_REPOSITORY": str(repository),
            "CLIPSERVE_VIDEOS": str(videos),
            "CLIPSERVE_SECRETS": str(repository.parent / "secrets" / "server"),
            "CLIPSERVE_CLIENT_SECRETS": str(repository.parent / "secrets" / "clients"),
            "CLIPSERVE_MODELS": "motion",
            "CLIPSERVE_REPLICAS": "2",
            "CLIPSERVE_MEMORY": "4g",
            "CLIPSERVE_WATCH_SECONDS": "2",
            "CLIPSERVE_DRAIN_SECONDS": "3",
            "CLIPSERVE_EXIT_SECONDS": "15",
            **{f"CLIPSERVE_{name}": str(port) for name, port in self.ports.items()},
        }

    def compose(self, *arguments: object, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """docker compose ..., with variables beside the stack's own."""
        environment = {**self.environment, **variables}
        return run("docker", "compose", *arguments, check=check, cwd=ROOT, env=environment)

    def docker(self, *arguments: object, check: bool = True) -> str:
        """What docker ... prints."""
        return run("docker", *arguments, check=check, env=self.environment).stdout.strip()

    def container(self, service: str) -> str:
        """The id of the service's first container."""
        return self.compose("ps", "-q", service).stdout.split()[0]

    def inspect(self, service: str, form: str) -> str:
        """docker inspect --format."""
        return self.docker("inspect", "--format", form, self.container(service))


@pytest.fixture(scope="package")
def stack(onnx_repository: Path, bouncing: Path) -> Iterator[Stack]:
    """Images are built, nothing runs yet."""
    folder = Path(tempfile.mkdtemp(prefix="clipserve-compose-"))
    folder.chmod(0o755)
    try:
        with docker_engine(folder) as environment:
            repository = folder / "models"
            for name in ("decode", "motion", "motion_net"):
                shutil.copytree(onnx_repository / name, repository / name)
            (folder / "videos").mkdir()
            shutil.copy(bouncing, folder / "videos" / "bouncing.mp4")
            (folder / "secrets" / "server").mkdir(parents=True)
            (folder / "secrets" / "clients").mkdir()
            (folder / "secrets" / "server" / "admin_key").write_text("the-key-of-the-operator")
            run("chown", "-R", "1000:1000", repository)
            run("chmod", "-R", "a+rX", folder)
            stack = Stack(environment, repository, folder / "videos")
            try:
                build_bases(folder, environment)
                stack.compose("build", "server", "client")
                yield stack
            finally:
                stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
                images = stack.docker("images", "-q", f"clipserve-*:{stack.environment['CLIPSERVE_TAG']}").split()
                stack.docker("rmi", "-f", *images, *BASES, check=False)
    except NoEngine as error:
        (pytest.fail if os.environ["CLIPSERVE_COMPOSE"] == "required" else pytest.skip)(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def exporter(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image of the exporter is built as well."""
    with torch_index(tmp_path_factory.mktemp("torch")) as index:
        stack.compose("build", "export", TEST_TORCH_INDEX=index)
