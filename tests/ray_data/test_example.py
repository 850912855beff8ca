"""examples/ray_job.py as a user runs it: a list, a Triton that it starts, a folder that Curator could read."""

import csv
import os
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from clipserve_export.formats import FormatName
from tests.exports import ROOT

pytestmark = pytest.mark.long


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "ray_job.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "RAY_ADDRESS": "local"}
    )


def test_a_list_becomes_a_folder_of_labels_and_embeddings(
    motion_files: dict[str, Path], repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *([path, label] for label, path in motion_files.items())])
    options = ("--model", "motion", "--embedded", "--repository", repositories("onnx"), "--features")
    done = run(tmp_path / "list.csv", tmp_path / "out", *options)
    assert done.returncode == 1, done.stderr  # one of the videos is broken
    assert "5 are new; of these 1 failed (1 not-a-video)" in done.stdout
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["true_label"]: row["label"] or row["error"] for row in rows} == {
        label: "not-a-video" if label == "broken" else label for label in motion_files
    }
    assert {len(row["embedding"]) for row in rows if row["error"] is None} == {192}


def test_a_folder_becomes_paths_that_every_node_has_and_a_store_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray.data, "from_items", list)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "1.mp4").touch()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("videos/1.mp4", b"video")
    read_videos = runpy.run_path(str(ROOT / "examples" / "ray_job.py"))["read_videos"]
    assert read_videos("videos") == [{"path": str(tmp_path / "videos" / "1.mp4")}]
    address = f"zip://videos/1.mp4::{tmp_path / 'a.zip'}"
    assert read_videos(f"zip://videos/::{tmp_path / 'a.zip'}") == [{"path": address}]
