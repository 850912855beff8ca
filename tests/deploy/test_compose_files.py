"""What the compose files promise, read as text: no Docker engine needed."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("docker-compose*.yml"))
ONE_SHOT = {"check", "export", "client", "loadtest"}


class Loader(yaml.SafeLoader):
    """Compose's own tags mean nothing here."""


Loader.add_constructor("!reset", lambda loader, node: None)


def load(path):
    return yaml.load(path.read_text(), Loader)


SERVICES = load(ROOT / "docker-compose.yml")["services"]


def has_compose():
    """Whether there is the command; it reads files without an engine."""
    version = ["docker", "compose", "version"]
    return shutil.which("docker") is not None and subprocess.run(version, capture_output=True).returncode == 0


def read_example():
    """The variables of .env.example and their values."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_every_variable_is_explained_once_with_the_default_it_has():
    used = {}
    for path in FILES:
        for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", path.read_text()):
            assert used.setdefault(name, default) == default, f"{name} has two defaults"
    example = read_example()
    assert example.pop("COMPOSE_FILE") == "docker-compose.yml"
    assert example == used


def test_no_variable_is_read_without_a_default():
    for path in FILES:
        assert not re.search(r"\$\{[A-Z_]+\}|\$[A-Z]", path.read_text()), path


@pytest.mark.parametrize("limit", ["memory", "cpus"])
def test_the_check_has_the_limits_of_the_server(limit):
    """It compares them with what the largest runs take, and counts the decoders by the cores."""
    check, server = (SERVICES[name]["deploy"]["resources"]["limits"].get(limit) for name in ("check", "server"))
    assert check == server


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_its_log_ends(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_port_is_bound_to_the_address_that_was_asked_for(path):
    ports = [port for service in load(path)["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("${CLIPSERVE_BIND:-127.0.0.1}:") for port in ports)


def test_only_what_serves_by_default_has_no_profile():
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["server"]


@pytest.mark.skipif(not has_compose(), reason="needs docker compose; no engine")
@pytest.mark.parametrize("service", ["client", "demo"])
def test_a_service_that_calls_the_server_takes_the_certificates_of_the_client_it_is_named(service):
    def read(name):
        done = subprocess.run(
            ["docker", "compose", "--profile", "*", "config", "--format", "json"],
            cwd=ROOT,
            env={**os.environ, "COMPOSE_FILE": "docker-compose.yml", "CLIPSERVE_CLIENT": name},
            capture_output=True,
            check=True,
            timeout=60,
        )
        found = json.loads(done.stdout)["services"][service]
        (folder,) = (volume for volume in found["volumes"] if volume["target"] == "/run/clipserve/clients")
        assert folder["read_only"]
        files = ("ROOT_CERTIFICATES", "CLIENT_KEY", "CLIENT_CERTIFICATE")
        return [found["environment"][f"CLIPSERVE_{file}"] for file in files]

    assert read("") == ["", "", ""]
    assert read("alice") == [f"/run/clipserve/clients/alice/{file}" for file in ("ca.pem", "client.key", "client.pem")]


def test_packages_of_the_server_are_pinned_by_hash_to_the_versions_everything_is_tested_with():
    text = (ROOT / "deploy" / "server" / "requirements.txt").read_text().replace("\\\n", "")
    requirements = [line for line in text.splitlines() if line and not line.startswith("#")]
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    for requirement in requirements:
        assert requirement.split()[0] in tested
        assert "--hash=sha256:" in requirement


@pytest.mark.parametrize("name", ["client", "exporter", "loadtest"])
def test_an_image_that_installs_the_package_has_all_that_its_wheel_is_made_of(name):
    recipe = (ROOT / "deploy" / name / "Dockerfile").read_text()
    lines = re.findall(r"^COPY (.+) /src\S*$", recipe, re.MULTILINE)
    copied = [Path(path) for line in lines for path in line.split()]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    sent = [Path(line[1:]) for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in [*map(Path, wheel["only-include"]), *map(Path, wheel["force-include"])]:
        assert any(path.is_relative_to(folder) for folder in copied), f"{path} is not copied"
        assert any(path.is_relative_to(folder) for folder in sent), f"{path} is not sent to the builder"
