"""A load test's code is no installed package; what it measures is a real Triton with `motion`."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.conftest import ROOT, required
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED

sys.path.insert(0, str(ROOT / "benchmarks" / "load"))

from loadtest.analyzer import Analyzer, find_analyzer
from loadtest.errors import LoadTestError

KEY = "the-key-of-the-operator"
ADMIN = f"--grpc-restricted-protocol=model-repository,statistics:clipserve-admin={KEY}"


@dataclass(frozen=True)
class Restricted:
    """A Triton whose statistics and repository ask for the key in `key_file`."""

    triton: Triton
    key_file: Path


@pytest.fixture(scope="session")
def analyzer() -> Analyzer:
    """perf_analyzer, from this machine or fetched once."""
    try:
        return find_analyzer()
    except LoadTestError as error:
        (pytest.fail if "perf_analyzer" in required() else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def restricted(
    repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restricted]:
    key_file = tmp_path_factory.mktemp("secrets") / "admin_key"
    key_file.write_text(f"{KEY}\n")
    with Triton(repositories("onnx"), models=["motion"], options=[ADMIN], **ANY_PORTS) as triton:
        yield Restricted(triton, key_file)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos of three motions."""
    folder = tmp_path_factory.mktemp("videos")
    for label in LABELS[:3]:
        write_motion_video(folder / f"{label.replace(' ', '_')}.mp4", label, UNSEEN_SEED)
    return folder
