"""A server of its own for a test that hurts it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, KilledTriton, set_parameters


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
    with ExitStack() as running:

        def start(**parameters: str) -> Triton:
            set_parameters(motion_repository, "decode", parameters)
            log = motion_repository.parent / "triton.log"
            return running.enter_context(KilledTriton(motion_repository, log=log, **ANY_PORTS))

        yield start
