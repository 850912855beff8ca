"""The columns of a Dataset before and after its classification."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import clipserve
from clipserve import InvalidRequest, NotAVideo, Prediction, Row, ScoredLabel, VideoNotReadable
from clipserve.ray import window_columns
from clipserve.ray.columns import add_columns, check_columns, list_types, read_ids, read_videos
from clipserve.ray.options import DatasetOptions, EmbedOptions, JobOptions, TimelineDatasetOptions
from clipserve.timeline.many import TimelineRow
from clipserve.timeline.window import VideoFacts, Window

SUCCESS = Row(
    "0",
    "a.mp4",
    Prediction(
        (ScoredLabel("archery", 5, 0.75), ScoredLabel("yoga", 399, 0.25)),
        "x3d_m",
        "a.mp4",
        features=np.arange(3, dtype=np.float32),
        truncated=False,
    ),
    milliseconds=12.0,
)
FAILURE = Row("1", "b.mp4", error=NotAVideo("no video"))


def test_a_dataset_without_videos_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"'path' .*'bytes' .*this one has 'file', 'id'"):
        check_columns(["file", "id"], DatasetOptions(), list_types)


def test_columns_that_the_results_need_are_to_be_renamed() -> None:
    said = r"already has the columns 'label'.*rename_columns\(\{'label': 'true_label'\}\)"
    with pytest.raises(InvalidRequest, match=said):
        check_columns(["path", "label"], DatasetOptions(), list_types)
    check_columns(["path", "true_label", "features"], DatasetOptions(), list_types)
    with pytest.raises(InvalidRequest, match="'features'"):
        check_columns(["path", "features"], DatasetOptions(features=True), list_types)


def test_the_id_is_the_column_else_the_path_else_the_hash_of_the_bytes() -> None:
    assert read_ids(pa.table({"id": [7], "path": ["a.mp4"]})) == ["7"]
    assert read_ids(pa.table({"path": ["a.mp4"], "bytes": [b"x"]})) == ["a.mp4"]
    assert read_ids(pa.table({"bytes": [b"x"]})) == [hashlib.sha256(b"x").hexdigest()]
    assert read_ids(pa.table({"path": ["https://me:secret@host/a.mp4"]})) == ["https://host/a.mp4"]


def test_a_row_without_an_id_is_told_apart_by_its_video() -> None:
    table = pa.table({"id": ["a", None, None], "path": ["a.mp4", "b.mp4", None], "bytes": [b"x", b"y", b"z"]})
    assert read_ids(table) == ["a", "b.mp4", hashlib.sha256(b"z").hexdigest()]
    assert read_ids(pa.table({"path": pa.array([None], pa.string())})) == [hashlib.sha256(b"").hexdigest()]


@pytest.mark.parametrize("name", ["id", "path", "bytes", "label", "scores", "report", "error", "model_version"])
def test_features_take_no_column_of_the_results(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"feature_column is '{name}', which is another column"):
        check_columns(["path"], DatasetOptions(features=True, feature_column=name), list_types)
    check_columns(["path"], DatasetOptions(feature_column=name), list_types)


def test_paths_are_texts_or_path_objects(tmp_path: Path) -> None:
    options = JobOptions(out=tmp_path, repository=tmp_path / "models")  # type: ignore[arg-type]
    assert (options.out, options.repository) == (str(tmp_path), str(tmp_path / "models"))
    for wrong in ("", None, 7, b"results"):
        with pytest.raises(InvalidRequest, match="out must be a folder"):
            JobOptions(out=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="repository must be the path"):
            JobOptions(out="results", repository=wrong)  # type: ignore[arg-type]


def test_bytes_come_before_paths_and_a_row_without_either_is_a_failure() -> None:
    content, path, nothing = read_videos(
        pa.table({"path": ["a.mp4", "b.mp4", None], "bytes": pa.array([b"x", None, None], pa.binary())})
    )
    assert bytes(content) == b"x"
    assert path == "b.mp4"
    assert isinstance(nothing, VideoNotReadable)


def test_every_column_has_its_type_even_if_all_of_its_values_are_null() -> None:
    options = EmbedOptions(model="x3d_m")
    table = pa.table({"path": ["a.mp4", "b.mp4"], "bytes": [b"x", b"y"], "n": [1, 2]})
    both = add_columns(table, ["a", "b"], [[SUCCESS], [FAILURE]], "2", options)
    failed = add_columns(table.slice(1), ["b"], [[FAILURE]], None, options)
    assert both.schema == failed.schema
    assert both.schema.field("embedding").type == pa.list_(pa.float32())
    assert both.drop_columns(["message"]).to_pylist() == [
        {
            "id": "a",
            "path": "a.mp4",
            "n": 1,
            "label": "archery",
            "labels": ["archery", "yoga"],
            "scores": [0.75, 0.25],
            "embedding": [0.0, 1.0, 2.0],
            "truncated": False,
            "error": None,
            "milliseconds": 12.0,
            "model": "x3d_m",
            "model_version": "2",
            "clipserve_version": clipserve.__version__,
        },
        {
            "id": "b",
            "path": "b.mp4",
            "n": 2,
            "label": None,
            "labels": None,
            "scores": None,
            "embedding": None,
            "truncated": None,
            "error": "not-a-video",
            "milliseconds": 0.0,
            "model": "x3d_m",
            "model_version": "2",
            "clipserve_version": clipserve.__version__,
        },
    ]


def test_options_are_checked_where_the_job_is_written() -> None:
    for wrong in ({"actors": 0}, {"parallel": 0}, {"num_gpus": 1}, {"batch_rows": 1.5}, {"url": "http://gpu1"}):
        with pytest.raises(InvalidRequest):
            DatasetOptions(**wrong)


def make_window(index: int) -> TimelineRow:
    labels = (ScoredLabel("archery", 5, 0.75), ScoredLabel("yoga", 399, 0.25))
    window = Window(index, index, index + 2.0, 25 * index, 25 * index + 50, labels, features=np.ones(3, np.float32))
    return TimelineRow("0", "a.mp4", 0, window=window)


def test_each_window_is_a_row_and_so_is_a_failure_after_its_windows() -> None:
    options = TimelineDatasetOptions(model="x3d_m", features=True)
    table = pa.table({"path": ["a.mp4", "b.mp4", "c.mp4"], "bytes": [b"x", b"y", b"z"], "n": [1, 2, 3]})
    answers = [
        [make_window(0), make_window(1), TimelineRow("0", "a.mp4", 0, facts=VideoFacts(3.0, 2, True))],
        [make_window(0), TimelineRow("1", "b.mp4", 1, error=NotAVideo("no"), facts=VideoFacts(9.0, 8, False))],
        [TimelineRow("2", "c.mp4", 2, error=NotAVideo("no"))],
    ]
    made = window_columns.add_columns(table, ["a", "b", "c"], answers, "2", options)
    failed = window_columns.add_columns(table.slice(2), ["c"], answers[2:], None, options)
    assert made.schema == failed.schema
    assert "bytes" not in made.column_names
    rows = made.to_pylist()
    assert [(row["id"], row["n"], row["window"], row["error"]) for row in rows] == [
        ("a", 1, 0, None), ("a", 1, 1, None), ("b", 2, 0, None), ("b", 2, None, "not-a-video"),
        ("c", 3, None, "not-a-video"),
    ]  # fmt: skip
    assert [row["windows"] for row in rows] == [2, 2, None, 1, 0]
    assert rows[1] == {
        "id": "a", "path": "a.mp4", "n": 1, "window": 1, "start": 1.0, "end": 3.0, "start_frame": 25, "end_frame": 75,
        "windows": 2, "duration": 3.0, "label": "archery", "score": 0.75, "labels": ["archery", "yoga"],
        "scores": [0.75, 0.25], "features": [1.0, 1.0, 1.0], "truncated": True, "error": None, "message": None,
        "model": "x3d_m", "model_version": "2", "clipserve_version": clipserve.__version__,
    }  # fmt: skip


def test_columns_of_windows_are_to_be_renamed_too() -> None:
    types = window_columns.list_types
    with pytest.raises(InvalidRequest, match=r"already has the columns 'start', 'window'"):
        check_columns(["path", "window", "start"], TimelineDatasetOptions(), types)
    with pytest.raises(InvalidRequest, match="feature_column is 'window', which is another column"):
        check_columns(["path"], TimelineDatasetOptions(features=True, feature_column="window"), types)
