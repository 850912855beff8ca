"""perf_analyzer, and a real Triton with `motion` to measure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clipserve.loadtest.load_levels import LoadTestError
from clipserve.loadtest.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from clipserve_export.formats import FormatName
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.conftest import ROOT, required
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton

# perf_analyzer is kept between runs of the tests.
CACHE = ROOT / ".cache"
KEY = "the-key-of-the-operator"
ADMIN = f"--grpc-restricted-protocol=model-repository,statistics:clipserve-admin={KEY}"


@dataclass(frozen=True)
class Restricted:
    """A Triton whose statistics and repository ask for the key in `key_file`."""

    triton: Triton
    key_file: Path


@pytest.fixture(scope="session")
def analyzer() -> Iterator[PerfAnalyzer]:
    """perf_analyzer, from this machine or fetched once. Programs that tests start find it as well."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(CACHE))
        yield _find()


def _find() -> PerfAnalyzer:
    try:
        return find_perf_analyzer()
    except LoadTestError as error:
        (pytest.fail if "perf_analyzer" in required() else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def restricted(
    repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restricted]:
    key_file = tmp_path_factory.mktemp("secrets") / "admin_key"
    key_file.write_text(f"{KEY}\n")
    with KilledTriton(repositories("onnx"), models=["motion"], options=[ADMIN], **ANY_PORTS) as triton:
        yield Restricted(triton, key_file)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos of three motions."""
    folder = tmp_path_factory.mktemp("videos")
    for label in LABELS[:3]:
        write_motion_video(folder / f"{label.replace(' ', '_')}.mp4", label, UNSEEN_SEED)
    return folder
