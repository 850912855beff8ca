"""Videos of motions under the names of other classes, and a server whose repository may change."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton

# Other classes than those that `motion` was trained to tell apart.
GROUPS = {
    **dict.fromkeys(("moving left", "moving right", "moving up", "moving down", "bouncing", "crossing"), "moves"),
    **dict.fromkeys(("rotating clockwise", "rotating counterclockwise"), "turns"),
    **dict.fromkeys(("growing", "shrinking"), "changes size"),
    **dict.fromkeys(("still", "blinking"), "stays"),
}
TRAINING_VIDEOS = 6  # of each motion
RESTRICTED = "--grpc-restricted-protocol=model-repository:clipserve-admin=secret"
ADMIN = {"triton-grpc-protocol-clipserve-admin": "secret"}
FIRST_NEW_SEED = UNSEEN_SEED + 1000


def write_motions(folder: Path, seeds: range) -> Path:
    """folder/moves/moving_left-7000100.mp4, ...: short videos of each motion, in a folder for each group."""
    for motion, group in GROUPS.items():
        (folder / group).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            path = folder / group / f"{motion.replace(' ', '_')}-{seed}.mp4"
            write_motion_video(path, motion, seed, width=160, height=120, seconds=1.2)
    return folder


@pytest.fixture(scope="session")
def training_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To fit with; one of its files is no video."""
    folder = write_motions(tmp_path_factory.mktemp("training"), range(UNSEEN_SEED, UNSEEN_SEED + TRAINING_VIDEOS))
    (folder / "stays" / "broken.mp4").write_bytes(b"no video at all" * 100)
    return folder


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of other seeds, to measure with."""
    return write_motions(tmp_path_factory.mktemp("new"), range(FIRST_NEW_SEED, FIRST_NEW_SEED + 3))


@pytest.fixture(scope="session")
def fit_server(
    repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    """A Triton with `motion`, over a repository of its own, which it loads models from for whoever has the key."""
    repository = copy_model(repositories("onnx"), tmp_path_factory.mktemp("repository"))
    with KilledTriton(repository, models=["motion"], options=[RESTRICTED], **ANY_PORTS) as triton:
        yield triton
