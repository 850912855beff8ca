"""A folder with the files that the pages name, and a served `motion` for their examples."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import clipserve
from clipserve_export.motion.videos import write_motion_video

VIDEOS = {"bouncing": 1, "moving left": 2, "growing": 3, "still": 4}


@pytest.fixture(scope="session")
def sample_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/ and labels.csv, as docs/first-steps.md makes them."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "videos").mkdir()
    lines = ["path,label"]
    for label, seed in VIDEOS.items():
        path = f"videos/{label.replace(' ', '_')}.mp4"
        write_motion_video(folder / path, label, seed, width=160, height=120)
        lines.append(f"{path},{label}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def folder_of(sample_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A page's own copy of these files, to run its blocks in, one after the other."""
    folders: dict[str, Path] = {}

    def find(page: str) -> Path:
        if page not in folders:
            folders[page] = tmp_path_factory.mktemp(Path(page).stem) / "files"
            shutil.copytree(sample_files, folders[page])
        return folders[page]

    return find


@pytest.fixture
def served_here(motion_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the pages import asks the server of the tests, where a page names none."""
    for name in ("VideoClassifier", "AsyncVideoClassifier", "evaluate", "compare"):
        monkeypatch.setattr(clipserve, name, partial(getattr(clipserve, name), url=motion_url))
    monkeypatch.setenv("CLIPSERVE_URL", motion_url)
    return motion_url
