"""The rows of a run, to look at and to save."""

import contextlib
import csv
import errno
import io
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np
import pandas
import pytest
from rich.console import Console

from clipserve import InvalidRequest, Prediction, Row, ScoredLabel, Table
from clipserve.tables.display import draw_table
from clipserve.tables.embeddings import write_vectors
from tests.evaluation.made_evaluation import make_evaluation

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
    console.print(draw_table(table.rows[:1]))
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


SAVE = {
    "x.csv": Table.to_csv,
    "x.jsonl": Table.to_jsonl,
    "x.parquet": Table.to_parquet,
    "x.npy": lambda table, path: write_vectors(table, path),
    "v.parquet": lambda table, path: write_vectors(table, path),
    "report.json": lambda _, path: make_evaluation(videos=200).to_json(path),
    "report.html": lambda _, path: make_evaluation().to_html(path),
}


@pytest.fixture(scope="module")
def long():
    """A table of 400 rows, no two alike."""
    labels = (ScoredLabel("archery", 5, 0.93),)
    predictions = (
        Prediction(labels, "x3d_m", f"{number}.mp4", features=np.full(8, number, np.float32)) for number in range(400)
    )
    return Table([Row(prediction.video, prediction.video, prediction) for prediction in predictions])


@contextlib.contextmanager
def disk_that_is_full_after(size):
    """Files grow no larger: writing more fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", SAVE)
def test_a_file_appears_whole_or_not_at_all(long, tmp_path, name):
    (tmp_path / name).write_text("what was there")
    with disk_that_is_full_after(500), pytest.raises(OSError, match="File too large") as caught:
        SAVE[name](long, tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert (tmp_path / name).read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    SAVE[name](long, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 500
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_that_is_not_there_is_named_and_not_the_file_s_other_name(long, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        long.to_csv(tmp_path / "nowhere" / "table.csv")
    assert caught.value.filename == str(tmp_path / "nowhere" / "table.csv")


def test_a_file_keeps_its_links_and_a_device_is_written_as_it_is(long, tmp_path, capfd):
    (tmp_path / "link.csv").symlink_to("table.csv")
    long.to_csv(tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("id,")
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o666 & ~read_umask()
    long.to_csv("/dev/stdout")
    assert capfd.readouterr().out.startswith("id,")
    os.mkfifo(tmp_path / "pipe")
    descriptor = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    Table(long.rows[:2]).to_jsonl(tmp_path / "pipe")  # what fits into a pipe
    assert os.read(descriptor, 4).startswith(b'{"id')
    os.close(descriptor)


def test_a_file_that_is_a_mount_of_its_own_is_written_in_place(long, tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", refuse)
    (tmp_path / "table.csv").write_text("what was there")
    before = (tmp_path / "table.csv").stat().st_ino
    long.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("id,")
    assert (tmp_path / "table.csv").stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_descriptor_is_written_as_it_is_where_it_leads_to_a_file_too(long, tmp_path):
    """As of /dev/stdout after `> table.csv` in a shell."""
    with (tmp_path / "table.csv").open("w+") as file:
        (tmp_path / "link.csv").symlink_to(f"/dev/fd/{file.fileno()}")
        for path in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}", tmp_path / "link.csv"):
            file.truncate(0)
            long.to_csv(path)
            file.seek(0)
            assert file.read(3) == "id,"


def test_a_link_in_a_circle_becomes_a_file(long, tmp_path):
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    long.to_csv(tmp_path / "circle.csv")
    assert (tmp_path / "circle.csv").read_text().startswith("id,")


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no /dev/shm")  # noqa: PTH112
def test_a_regular_file_below_dev_appears_whole_or_not_at_all(long):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "x.csv"
        path.write_text("what was there")
        with disk_that_is_full_after(500), pytest.raises(OSError, match="File too large"):
            long.to_csv(path)
        assert path.read_text() == "what was there"


def read_umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("missing", ["pandas", "pyarrow"])
def test_a_missing_extra_is_named(table, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # as Python marks what cannot be imported
    with pytest.raises(InvalidRequest, match=r"pip install 'clipserve\[data\]'"):
        table.to_pandas() if missing == "pandas" else table.to_parquet(tmp_path / "table.parquet")
