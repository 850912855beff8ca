"""What tests of the client share: fake servers, both classifiers, certificates, and a real Triton with `motion`."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from clipserve_export.motion.videos import write_motion_video
from tests.both_classifiers import KINDS, connecting
from tests.client.fake_triton import FakeTriton, start_server
from tests.ports import find_free_ports
from tests.watching import HANG_SECONDS


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """Start a FakeTriton on this machine; returns its url."""
    running: list[tuple[grpc.Server, FakeTriton]] = []

    def start_one(triton: FakeTriton, **options: Any) -> str:
        running.append((start_server(triton, **options), triton))
        return triton.url

    yield start_one
    for server, triton in running:
        triton.release.set()
        server.stop(None).wait(HANG_SECONDS)


@pytest.fixture
def triton(start: Callable[..., str]) -> FakeTriton:
    """A running server with the usual models."""
    fake = FakeTriton()
    start(fake)
    return fake


@pytest.fixture
def fleet(start: Callable[..., str]) -> list[FakeTriton]:
    """Three running servers."""
    tritons = [FakeTriton() for _ in range(3)]
    for triton in tritons:
        start(triton)
    return tritons


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return find_free_ports(1)[0]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca), and a key and certificate each for server and client."""
    openssl = shutil.which("openssl")
    assert openssl, "these tests make certificates with openssl: install it (Debian: openssl)"
    folder = tmp_path_factory.mktemp("certificates")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "names", "-out", f"{name}.pem"),
        )
    return folder


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest, triton: FakeTriton) -> Iterator[Callable[..., Any]]:
    """Make a classifier for `triton` (or another url); the test runs with each kind."""
    with connecting(request.param, triton) as make:
        yield make


@pytest.fixture(scope="session")
def motion_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short video of each of four motions, named after them."""
    folder = tmp_path_factory.mktemp("motions")
    for label in ("moving left", "moving right", "growing", "still"):
        write_motion_video(folder / f"{label}.mp4", label, 1_234_567)
    return folder
