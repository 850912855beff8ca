"""Videos of every motion, and lists with their labels."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from tests.motion_repository import UNSEEN_SEED


@pytest.fixture(scope="session")
def motion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos of each of the twelve motions, named after them: moving_left-0.mp4."""
    folder = tmp_path_factory.mktemp("motions")
    for label in LABELS:
        for number in range(2):
            path = folder / f"{label.replace(' ', '_')}-{number}.mp4"
            write_motion_video(path, label, UNSEEN_SEED + number, width=160, height=120, seconds=1.2)
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    return folder


WriteList = Callable[..., Path]


@pytest.fixture
def write_list(tmp_path: Path, motion_folder: Path) -> WriteList:
    """Write labels.csv: (file name, label) of videos of the folder; by default all of them with their true labels."""

    def write(rows: list[tuple[str, str]] | None = None, *, header: str = "id,path,label") -> Path:
        if rows is None:
            names = sorted(path.name for path in motion_folder.glob("*-*.mp4"))
            rows = [(name, name.rpartition("-")[0]) for name in names]
        lines = [f"{number},{motion_folder / name},{label}" for number, (name, label) in enumerate(rows)]
        path = tmp_path / "labels.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return write
