"""The rows of a run, to look at and to save."""

import csv
import io
import json
import sys

import grpc
import numpy as np
import pandas
import pytest
from rich.console import Console

from clipserve import InvalidRequest
from clipserve.tables.drawing import draw_table

SOURCE = [
    {"id": 1, "path": b"good", "label": "archery"},
    {"id": 2, "path": b"broken", "label": "yoga"},
    {"id": 3, "path": "missing [red].mp4"},
    {"id": 4, "path": b"cut off", "label": "archery"},
]


@pytest.fixture
def table(connect, triton):
    triton.truncated = {b"cut off"}
    triton.failures_by_content[b"broken"] = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] <b>no</b> container")
    return connect().classify_many(SOURCE, top_k=2, features=True).table()


def test_a_table_has_rows_failures_and_a_summary(table):
    assert len(table) == 4
    assert [row.id for row in table] == ["1", "2", "3", "4"]
    assert [row.id for row in table.failures] == ["2", "3"]
    assert str(table) == "4 rows: 2 classified (1 truncated), 2 failed (1 NotAVideo, 1 VideoNotReadable)"


def test_features_are_one_array_with_nan_where_a_video_failed(table):
    assert (table.features.shape, table.features.dtype) == ((4, 8), np.float32)
    np.testing.assert_array_equal(table.features[0], np.arange(8))
    assert np.isnan(table.features[1:3]).all()


def test_features_that_were_not_asked_for_say_so(connect):
    with pytest.raises(InvalidRequest, match="features=True"):
        connect().classify_many([b"good"]).table().features  # noqa: B018


def test_a_terminal_shows_labels_scores_and_bars(table, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    table.show()
    shown = capsys.readouterr().out
    for text in ("archery", "0.93", "█████████▎", "deadlifting 0.04", "not-a-video", "missing [red].mp4", "2 failed"):
        assert text in shown
    assert shown.count("archery (truncated)") == 1
    console = Console(file=io.StringIO(), width=200)
    console.print(draw_table(table, rows=1))
    assert "missing" not in console.file.getvalue()


def test_a_notebook_shows_the_same_with_everything_escaped(table):
    html = table._repr_html_()
    for text in ("<b>archery</b>", "width:93px", "not-a-video", "&lt;b&gt;no&lt;/b&gt;", "2 classified"):
        assert text in html
    assert html.count(" (truncated)</span>") == 1
    assert "<b>no</b>" not in html


def test_a_data_frame_has_a_column_for_each_label_and_score(table):
    frame = table.to_pandas()
    assert list(frame.columns) == [
        *("id", "video", "label", "label_1", "score_1", "label_2", "score_2"),
        *("truncated", "error", "message", "milliseconds", "features"),
    ]
    assert frame.label_1[0] == "archery"
    assert frame.score_1[0] == 0.93
    assert frame.error[1:3].tolist() == ["not-a-video", "video-not-readable"]
    assert frame.truncated.tolist() == [False, None, None, True]
    assert frame.features[0].tolist() == list(range(8))


def test_csv_reads_back(table, tmp_path):
    table.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["truncated"] for row in rows] == ["False", "", "", "True"]
    assert (rows[0]["label_1"], rows[0]["score_1"], rows[0]["error"]) == ("archery", "0.93", "")
    assert rows[1]["message"] == str(table[1].error)


def test_json_lines_read_back(table, tmp_path):
    table.to_jsonl(tmp_path / "table.jsonl")
    good, broken, missing, cut = map(json.loads, (tmp_path / "table.jsonl").read_text().splitlines())
    assert good["labels"][0] == {"label": "archery", "index": 5, "score": 0.93}
    assert (good["label"], good["features"]) == ("archery", list(range(8)))
    assert broken["error"] == {
        "class": "NotAVideo",
        "code": "not-a-video",
        "message": str(table[1].error),
        "retryable": False,
    }
    assert missing["video"] == "missing [red].mp4"
    assert (good["truncated"], cut["truncated"]) == (False, True)


def test_parquet_reads_back(table, tmp_path):
    table.to_parquet(tmp_path / "table.parquet")
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    assert frame.id.tolist() == ["1", "2", "3", "4"]
    assert frame.truncated.tolist() == [False, None, None, True]
    assert frame.features[0].tolist() == list(range(8))
    assert frame.features[1] is None
    assert frame.error[1] == "not-a-video"


def test_a_table_of_nothing_is_a_table(connect, tmp_path):
    table = connect().classify_many([]).table()
    assert (len(table), table.features.shape, list(table.to_pandas().id)) == (0, (0, 0), [])
    table.to_parquet(tmp_path / "table.parquet")
    table.to_csv(tmp_path / "table.csv")
    table.show()


@pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
def test_a_missing_extra_is_named(table, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # as Python marks what cannot be imported
    with pytest.raises(InvalidRequest, match=r"pip install 'clipserve\[data\]'"):
        table.to_pandas() if missing == "pandas" else table.to_parquet(tmp_path / "table.parquet")
