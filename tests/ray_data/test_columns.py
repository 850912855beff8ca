"""The columns of a Dataset before and after its classification."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import clipserve
from clipserve import InvalidRequest, NotAVideo, Prediction, Row, ScoredLabel, VideoNotReadable
from clipserve.ray.columns import add_columns, check_columns, read_ids, read_videos
from clipserve.ray.options import DatasetOptions, EmbedOptions, JobOptions

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
        check_columns(["file", "id"], DatasetOptions())


def test_columns_that_the_results_need_are_to_be_renamed() -> None:
    with pytest.raises(InvalidRequest, match=r"'label' already.*rename_columns\(\{'label': 'true_label'\}\)"):
        check_columns(["path", "label"], DatasetOptions())
    check_columns(["path", "true_label", "features"], DatasetOptions())
    with pytest.raises(InvalidRequest, match="'features'"):
        check_columns(["path", "features"], DatasetOptions(features=True))


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
        check_columns(["path"], DatasetOptions(features=True, feature_column=name))
    check_columns(["path"], DatasetOptions(feature_column=name))


def test_paths_are_texts_or_path_objects(tmp_path: Path) -> None:
    options = JobOptions(out=tmp_path, repository=tmp_path / "models")  # type: ignore[arg-type]
    assert (options.out, options.repository) == (str(tmp_path), str(tmp_path / "models"))
    for wrong in ("", None, 7, b"results"):
        with pytest.raises(InvalidRequest, match="out is a folder"):
            JobOptions(out=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="repository is the path"):
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
    both = add_columns(table, ["a", "b"], [SUCCESS, FAILURE], "2", options)
    failed = add_columns(table.slice(1), ["b"], [FAILURE], None, options)
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
