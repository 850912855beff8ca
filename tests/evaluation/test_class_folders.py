"""Folders with a folder for each class as sources."""

from pathlib import Path

import pytest

from clipserve.errors import InvalidRequest
from clipserve.evaluation.class_folders import read_labelled
from clipserve.evaluation.ground_truth import LabelledSource


def test_a_video_in_no_class_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "1.mp4").touch()
    (entry,) = read_labelled(tmp_path)
    assert entry.label == "run"
    (tmp_path / "2.mp4").touch()
    with pytest.raises(InvalidRequest, match="lies in no class: put each video into a folder"):
        list(read_labelled(tmp_path))


@pytest.mark.parametrize("name", ["push|pull", '["run", "jump"]', "[warm up]"])
def test_a_folder_is_one_class_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.mp4").touch()
    (video,) = LabelledSource.read(read_labelled(tmp_path)).videos
    assert video.labels == (name,)


def test_a_class_without_a_video_is_named(tmp_path: Path) -> None:
    for name in ("run", "jump", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "1.mp4").touch()
    (tmp_path / "jump" / "1.txt").touch()
    with pytest.raises(InvalidRequest, match="jump' has no video, and each folder is a class"):
        list(read_labelled(tmp_path))


def test_other_sources_beside_folders_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.mp4").touch()
    entries = read_labelled([b"video", str(tmp_path), b"video"])
    assert [(entry.id, entry.label) for entry in entries] == [
        ("0", None),
        (str(tmp_path / "run" / "1.mp4"), "run"),
        ("2", None),
    ]
