"""A server of its own for a test that hurts it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, set_parameters


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something that moves left."""
    path = tmp_path_factory.mktemp("videos") / "left.mp4"
    write_motion_video(path, "moving left", 1_234_567)
    return path


@pytest.fixture
def motion_repository(repositories: Callable[[FormatName], Path], tmp_path: Path) -> Path:
    """`motion` as ONNX, to spoil."""
    return copy_model(repositories("onnx"), tmp_path / "repository")


@pytest.fixture
def serve(motion_repository: Path) -> Iterator[Callable[..., Triton]]:
    """Serve `motion` with these parameters in the decode step's config."""
    running: list[Triton] = []

    def start(**parameters: str) -> Triton:
        set_parameters(motion_repository, "decode", parameters)
        running.append(Triton(motion_repository, log=motion_repository.parent / "triton.log", **ANY_PORTS))
        running[-1].start()
        return running[-1]

    yield start
    for triton in running:
        triton.stop()
