"""The container's command line, run by the Triton of the wheel on this machine."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from clipserve_container.arguments import triton_command
from clipserve_container.repository import choose_models
from clipserve_container.settings import Settings
from clipserve_server.options import METRICS_VARIABLE
from clipserve_server.python_stubs import make_environment
from clipserve_server.wheel import find_wheel, make_backend_directory
from tests.ports import find_free_ports
from tests.watching import HANG_SECONDS

START_SECONDS = 120.0


class EmbeddedServer:
    """Started, it listens on loopback ports of its own."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        admin_key: str = "the-key-of-the-operator",
        api_key: str | None = None,
    ) -> None:
        self.settings, self.folder = settings, folder
        self.admin_key, self.api_key = admin_key, api_key
        self.ports = dict(zip(("http", "grpc", "metrics"), find_free_ports(3), strict=True))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def grpc_url(self) -> str:
        """By name, which is what the certificate is for."""
        return f"localhost:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def command(self) -> list[str]:
        """The container's, with this machine's places after it: of options given twice Triton takes the last."""
        wheel = find_wheel()
        models = choose_models(self.settings.repository, self.settings.models)
        return [
            str(wheel.binary),
            *triton_command(self.settings, models, admin_key=self.admin_key, api_key=self.api_key)[1:],
            f"--backend-directory={make_backend_directory(self.folder / 'backends', wheel)}",
            # Of its own, so that nothing is left in /dev/shm by another's name.
            f"--backend-config=python,shm-region-prefix-name=clipserve-deploy-{os.getpid()}-{self.ports['grpc']}",
            *(f"--{service}-address=127.0.0.1" for service in self.ports),
            *(f"--{service}-port={port}" for service, port in self.ports.items()),
        ]

    def environment(self) -> dict[str, str]:
        """What the command runs in."""
        environment = make_environment(self.folder / "python", find_wheel())
        # Not Triton's default port, where another server of this machine may answer.
        return {
            **environment,
            "OMP_NUM_THREADS": "1",
            METRICS_VARIABLE: f"http://127.0.0.1:{self.ports['metrics']}/metrics",
        }

    def start(self) -> None:
        """Until it answers over HTTP, which has no TLS."""
        log = (self.folder / "triton.log").open("wb")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT, env=self.environment())
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self.process.poll() is None, (self.folder / "triton.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the server does not become ready"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/models/motion/ready", timeout=HANG_SECONDS):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(HANG_SECONDS)
