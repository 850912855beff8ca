"""Base images where no registry is reached: Debian by debootstrap, and on it what the official images bring."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from clipserve_server.wheel import SUBSTITUTES, find_wheel
from tests.deploy.engine import NoEngine, run
from tests.exports import CPP_BACKENDS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SLIM = "clipserve-test/slim"
# No release is called so: an image of NVIDIA's that may be here stays as it is.
RELEASE = "00.00"
BASES = {
    SLIM: None,
    f"nvcr.io/nvidia/tritonserver:{RELEASE}-py3": "triton",
    "clipserve-test/haproxy": "haproxy",
    "clipserve-test/prometheus": "prometheus",
}
# Debian's; the wheel has a stub of the Python backend for each.
PYTHON = "3.11"


def build_bases(folder: Path, environment: dict[str, str]) -> None:
    """Make every image of BASES."""
    make_slim(folder / "slim", environment)
    context = folder / "context"
    lay_out_triton(context / "tritonserver")
    for package in ("clipserve_host", "clipserve_server"):
        shutil.copytree(ROOT / "server" / package, context / "packages" / package)
    for image, name in BASES.items():
        if name is not None:
            recipe = HERE / "bases" / f"{name}.Dockerfile"
            build = ["build", "-q", "--network=host", f"--build-arg=SLIM_IMAGE={SLIM}", f"--tag={image}"]
            # The builder that needs no plugin.
            classic = {**environment, "DOCKER_BUILDKIT": "0"}
            run("docker", *build, f"--file={recipe}", context, env=classic)


def make_slim(root: Path, environment: dict[str, str]) -> None:
    """Debian with Python and pip, trusting whom this machine trusts."""
    if shutil.which("debootstrap") is None:
        raise NoEngine("debootstrap is missing (Debian: apt-get install debootstrap)")
    packages = f"ca-certificates,python3,python3-pip,libpython{PYTHON}"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root)
    for path in ("etc/ssl/certs/ca-certificates.crt",):
        shutil.copy(Path("/") / path, root / path)
    (root / "etc" / "pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    for path in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*_*")):
        path.unlink()
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        run("docker", "import", "-", SLIM, stdin=tar.stdout, env=environment)
    shutil.rmtree(root)


def lay_out_triton(folder: Path) -> None:
    """The wheel's Triton as NVIDIA's image has it in /opt/tritonserver, and its C++ backends or their substitutes."""
    wheel = find_wheel()
    stub = wheel.root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    python = folder / "backends" / "python"
    python.mkdir(parents=True)
    for path in (*wheel.python_backend[:2], stub):
        shutil.copy2(path, python)
    (folder / "bin").mkdir()
    shutil.copy2(wheel.binary, folder / "bin")
    shutil.copytree(wheel.libraries, folder / "lib")
    shutil.copytree(wheel.root / "caches", folder / "caches")
    for name, module in SUBSTITUTES.items():
        if CPP_BACKENDS.is_dir():
            shutil.copytree(CPP_BACKENDS / name, folder / "backends" / name)
            continue
        (folder / "backends" / name).mkdir()
        (folder / "backends" / name / "model.py").write_text(f"from {module} import TritonPythonModel\n")


@contextmanager
def torch_index(folder: Path) -> Iterator[str]:
    """A package index on loopback with the torch that this machine installs, which is the CPU's."""
    torch = next(line for line in (ROOT / "Makefile").read_text().split() if line.startswith("torch=="))
    shelf = folder / "index" / "torch"
    shelf.mkdir(parents=True)
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", shelf, torch)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder / "index")))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        shutil.rmtree(shelf)


class QuietHandler(SimpleHTTPRequestHandler):
    """Files and listings, which is all that pip asks for."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass
