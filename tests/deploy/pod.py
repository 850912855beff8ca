"""A pod of a rendered chart in a Docker engine: what a kubelet does with its containers, probes and end."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.deploy.engine import run
from tests.watching import wait_for

Spec = dict[str, Any]
UNITS = {"Mi": "m", "Gi": "g"}


class Pod:
    """One pod. Its network is Docker's; each of its ports is a free one of loopback.

    spec: the pod's, as rendered. storage: the folder for each claim, and for each Secret by name.
    """

    def __init__(self, environment: Mapping[str, str], name: str, spec: Spec, storage: Mapping[str, Path]) -> None:
        self.name, self.spec, self._storage = name, spec, storage
        self._environment = dict(environment)
        (self.container,) = spec["containers"]
        self._ports = {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}
        self._copies: list[str] = []

    def docker(self, *arguments: object, check: bool = True) -> str:
        """What docker ... prints, on both streams."""
        done = run("docker", *arguments, check=check, env=self._environment)
        return (done.stdout + done.stderr).strip()

    def start(self) -> None:
        """Run the init containers, one after another, then the container. Raises AssertionError when one fails."""
        for container in self.spec.get("initContainers", []):
            run("docker", "run", "--rm", *self.options(container), *self.words(container), env=self._environment)
        self.docker("run", "-d", "--name", self.name, *self.options(self.container), *self.words(self.container))

    def run(self) -> None:
        """Run the container of a Job until it ends. Raises AssertionError when it fails."""
        run("docker", "run", "--rm", *self.options(self.container), *self.words(self.container), env=self._environment)

    def words(self, container: Spec) -> list[str]:
        """Image and arguments; `command` replaces the image's entry point."""
        return [container["image"], *container.get("command", [])[1:], *container.get("args", [])]

    def options(self, container: Spec) -> list[str]:
        """The options of `docker run` for a container of this pod."""
        security = {**self.spec.get("securityContext", {}), **container["securityContext"]}
        assert security["readOnlyRootFilesystem"]
        assert security["runAsNonRoot"]
        assert not security["allowPrivilegeEscalation"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}  # which Docker's default is
        limits = container["resources"]["limits"]
        options = [
            "--read-only",
            f"--user={security['runAsUser']}:{security['runAsGroup']}",
            *(f"--cap-drop={name}" for name in security["capabilities"]["drop"]),
            "--security-opt=no-new-privileges:true",
            f"--cpus={limits['cpu']}",
            f"--memory={docker_size(limits['memory'])}",
            *(f"--publish=127.0.0.1::{port['containerPort']}" for port in container.get("ports", [])),
            *(f"--env={one['name']}={one['value']}" for one in container.get("env", [])),
            *(f"--group-add={group}" for group in [self.spec.get("securityContext", {}).get("fsGroup")] if group),
        ]
        if self.spec.get("shareProcessNamespace"):
            options.append("--init")
        if "command" in container:
            options.append(f"--entrypoint={container['command'][0]}")
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in container["volumeMounts"]:
            options.append(self.mount(volumes[mount["name"]], mount))
        return options

    def mount(self, volume: Spec, mount: Spec) -> str:
        """The option for one mount. A Secret is copied, with the names that the volume gives its keys."""
        place, mode = mount["mountPath"], "ro" if mount.get("readOnly") else "rw"
        if "emptyDir" in volume:
            size = docker_size(volume["emptyDir"]["sizeLimit"])
            return f"--tmpfs={place}:rw,exec,mode=1777,size={size}"
        if "persistentVolumeClaim" in volume:
            return f"--volume={self._storage[volume['persistentVolumeClaim']['claimName']]}:{place}:{mode}"
        folder = self._storage["secrets"] / f"{self.name}-{volume['name']}"
        folder.mkdir()
        for source in volume["projected"]["sources"]:
            secret = source["secret"]
            for item in secret["items"]:
                (folder / item["path"]).write_bytes((self._storage[secret["name"]] / item["key"]).read_bytes())
        run("chown", "-R", f"0:{self.spec['securityContext']['fsGroup']}", folder)
        run("chmod", "-R", "u=rX,g=rX,o=", folder)
        return f"--volume={folder}:{place}:{mode}"

    def address(self, port: str) -> tuple[str, int]:
        """Where a named port is reached."""
        host, number = self.docker("port", self.name, self._ports[port]).splitlines()[0].rsplit(":", 1)
        return host, int(number)

    def probe(self, probe: Spec) -> bool:
        """Do what a kubelet does: GET, or a command in the container."""
        if "exec" in probe:
            command = ["docker", "exec", self.name, *probe["exec"]["command"]]
            return subprocess.run(command, capture_output=True, env=self._environment).returncode == 0
        host, port = self.address(probe["httpGet"]["port"])
        try:
            url = f"http://{host}:{port}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]) as response:
                return 200 <= response.status < 400
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_ready(self) -> None:
        """The start-up probe, then the readiness probe. Raises AssertionError with the log where it takes too long."""
        probe = self.container.get("startupProbe", self.container["readinessProbe"])
        seconds = (
            min(120, probe["failureThreshold"] * probe["periodSeconds"]) if "startupProbe" in self.container else 60
        )
        deadline = time.monotonic() + seconds
        while not self.probe(probe):
            state = json.loads(self.docker("inspect", "--format", "{{json .State}}", self.name))
            assert state["Running"], self.docker("logs", self.name)[-4000:]
            assert time.monotonic() < deadline, self.docker("logs", self.name)[-4000:]
            time.sleep(0.5)
        assert wait_for(lambda: self.probe(self.container["readinessProbe"]))

    def terminate(self) -> tuple[int, float]:
        """preStop, SIGTERM, and SIGKILL after the grace period. Returns exit status and seconds."""
        started = time.monotonic()
        grace = self.spec["terminationGracePeriodSeconds"]
        if "lifecycle" in self.container:
            time.sleep(self.container["lifecycle"]["preStop"]["sleep"]["seconds"])
        left = max(1, int(grace - (time.monotonic() - started)))
        self.docker("stop", f"--time={left}", self.name)
        status = int(self.docker("inspect", "--format", "{{.State.ExitCode}}", self.name))
        return status, time.monotonic() - started

    def remove(self) -> None:
        """Whatever its state."""
        self.docker("rm", "-f", self.name, check=False)


def docker_size(quantity: str) -> str:
    """Kubernetes' 16Gi is Docker's 16g."""
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match, quantity
    return match[1] + UNITS[match[2]]
