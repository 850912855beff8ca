"""The container's Service around the Triton of the wheel, in a process: python -m tests.deploy.running_service JSON"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from clipserve_container.readiness import Readiness
from clipserve_container.service import Service
from clipserve_container.settings import Settings
from clipserve_server.options import LIMITS_VARIABLE
from tests.deploy.embedded import EmbeddedServer
from tests.ports import find_free_ports
from tests.watching import HANG_SECONDS, NEVER_SECONDS

ROOT = Path(__file__).parents[2]

# The test's videos take longer to decode than requests are taken, and a busy machine does not come to the end of these.
DRAIN_SECONDS, EXIT_SECONDS = 0.1, 120.0


class RunningService:
    """A Service in a process of its own, as in the container. command: what runs in the place of Triton."""

    def __init__(
        self,
        exported: Path,
        folder: Path,
        *,
        command: list[str] | None = None,
        stuck_seconds: float = NEVER_SECONDS,
    ) -> None:
        # A name of its own: unlike a container, this machine may run other servers over the same folder.
        self.repository = folder / "repository"
        self.repository.symlink_to(exported)
        self.server = EmbeddedServer(Settings(repository=self.repository, models=("motion",), gpu="none"), folder)
        (self.ready_port,) = find_free_ports(1)
        self.log_path = folder / "service.log"
        given = {
            "command": command or self.server.command(),
            "url": self.server.http_url,
            "names": ["decode", "motion_net", "motion"],
            "repository": str(self.repository),
            "ready_port": self.ready_port,
            "in_flight": str(folder / "in_flight"),
            "stuck_seconds": stuck_seconds,
        }
        path = os.pathsep.join([str(ROOT), str(ROOT / "deploy" / "server")])
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.running_service", json.dumps(given)],
                stdout=log,
                stderr=subprocess.STDOUT,
                # One decoder, on any machine: so the second video waits.
                env={**self.server.environment(), "PYTHONPATH": path, LIMITS_VARIABLE: '{"workers": "1"}'},
                start_new_session=True,
            )

    def stop(self) -> None:
        """As a container ends: with its first process, all others. A stub that Triton was still starting stays."""
        self.process.terminate()
        try:
            self.process.wait(HANG_SECONDS)
        finally:
            for process in psutil.process_iter(["cmdline"]):
                if any(str(self.repository) in word for word in process.info["cmdline"] or ()):
                    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                        process.kill()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the ready port; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ready_port}{path}", timeout=HANG_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 2 * HANG_SECONDS
        while self.get("/ready")[0] != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


def main(given: str) -> int:
    what = json.loads(given)
    service = Service(
        what["command"],
        Readiness(what["url"], what["names"], Path(what["repository"])),
        ready_port=what["ready_port"],
        restart_after=2,
        watch_seconds=0.3,
        drain_seconds=DRAIN_SECONDS,
        exit_seconds=EXIT_SECONDS,
        in_flight=Path(what["in_flight"]),
        stuck_seconds=what["stuck_seconds"],
        certificate_expiry=time.time() + 365 * 86400,
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
