"""A folder of results: what is done, what is tried again, and what cannot be mixed."""

import pickle
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from clipserve import InvalidRequest
from clipserve.ray.results import DoneIds, ResultFolder, WindowFolder

SETTINGS = {"model": "motion", "top_k": 5}


def make_table(errors: dict[str, str | None]) -> pa.Table:
    """Rows with these ids and codes."""
    return pa.table({"id": list(errors), "error": pa.array(errors.values(), pa.string()), "n": range(len(errors))})


def read_ids(folder: Path) -> list[str]:
    return sorted(pq.read_table(folder)["id"].to_pylist())


def test_ids_are_found_among_many() -> None:
    done = DoneIds.of(f"video-{number}" for number in range(0, 10_000, 2))
    assert len(done) == 5_000
    assert done.find(["video-0", "video-1", "video-9998", "other", "café"]).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert DoneIds.of([]).find(["a"]).tolist() == [False]
    assert DoneIds.of(["a"]).find([]).tolist() == []


def test_failures_that_are_not_about_the_video_are_tried_again(tmp_path: Path) -> None:
    folder = ResultFolder(str(tmp_path))
    folder.write(make_table({"good": None, "bad": "not-a-video", "late": "deadline-exceeded"}))
    folder.write(make_table({"missing": "video-not-readable"}))
    folder.write(make_table({"fine": None}))
    done = folder.find_done()
    assert done.find(["good", "bad", "fine", "late", "missing"]).tolist() == [True, True, True, False, False]
    assert read_ids(tmp_path) == ["bad", "fine", "good"]


def make_windows(*rows: tuple[str, int | None, int | None, str | None]) -> pa.Table:
    """Rows with these ids, windows, counts of windows and codes."""
    names = {"id": pa.string(), "window": pa.int64(), "windows": pa.int64(), "error": pa.string()}
    columns = zip(*rows, strict=True)
    return pa.table({name: pa.array(values, kind) for (name, kind), values in zip(names.items(), columns, strict=True)})


def test_a_video_is_done_when_all_of_its_windows_are_there(tmp_path: Path) -> None:
    folder = WindowFolder(str(tmp_path))
    assert len(folder.find_done()) == 0
    folder.write(make_windows(("whole", 0, 2, None), ("whole", 1, 2, None), ("spread", 0, 3, None)))
    folder.write(make_windows(("spread", 1, 3, None), ("spread", 2, 3, None)))
    folder.write(make_windows(("torn", 1, 2, None)))
    folder.write(make_windows(("late", 0, None, None), ("late", None, 1, "deadline-exceeded")))
    folder.write(make_windows(("bad", 0, None, None), ("bad", None, 1, "not-a-video"), ("cut", 0, None, None)))
    done = folder.find_done()
    assert len(done) == 3
    assert done.find(["whole", "spread", "bad", "torn", "late", "cut"]).tolist() == [True] * 3 + [False] * 3
    assert read_ids(tmp_path) == ["bad", "bad", "spread", "spread", "spread", "whole", "whole"]
    folder.write(make_windows(("spread", 1, 3, None), ("spread", 2, 3, None)))  # by a task that Ray runs again
    assert len(read_ids(tmp_path)) == 7


def test_a_batch_that_is_written_twice_is_there_once(tmp_path: Path) -> None:
    folder = ResultFolder(str(tmp_path))
    folder.write(make_table({"a": None, "b": None}))
    folder.write(make_table({"a": None, "b": "failed"}))
    assert read_ids(tmp_path) == ["a", "b"]


def test_what_a_killed_job_left_unfinished_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-part-1.parquet.0a").write_bytes(b"half a file")
    folder = ResultFolder(f"file://{tmp_path}")
    folder.write(make_table({"a": None}))
    assert len(folder.find_done()) == 1
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["part-"]


def test_a_folder_has_the_results_of_one_kind_of_job(tmp_path: Path) -> None:
    ResultFolder(str(tmp_path)).check_settings({**SETTINGS, "model": "of a job that wrote no row"})
    ResultFolder(str(tmp_path)).check_settings(SETTINGS)
    ResultFolder(str(tmp_path)).write(make_table({"a": None}))
    ResultFolder(str(tmp_path)).check_settings(SETTINGS)
    with pytest.raises(InvalidRequest, match="started with model 'motion', now 'x3d_m'"):
        ResultFolder(str(tmp_path)).check_settings({**SETTINGS, "model": "x3d_m"})


def test_files_of_no_job_are_not_mixed_with_results(tmp_path: Path) -> None:
    pq.write_table(make_table({"a": None}), tmp_path / "mine.parquet")
    with pytest.raises(InvalidRequest, match="files of no job"):
        ResultFolder(str(tmp_path)).check_settings(SETTINGS)


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be written to 'nowhere://bucket'"):
        ResultFolder("nowhere://bucket")


@pytest.mark.parametrize("address", ["nowhere://KEY:hidden@bucket/x", "s3://KEY:hidden@bucket/x?secret_key=hidden"])
def test_credentials_of_an_address_appear_in_no_message(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be written to .*://bucket/x") as raised:
        ResultFolder(address)
    assert "hidden" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.long  # a server for S3, in this process
def test_results_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    for name, value in (("ACCESS_KEY_ID", "any"), ("SECRET_ACCESS_KEY", "any"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        fs.S3FileSystem(endpoint_override=url, allow_bucket_creation=True).create_dir("bucket")
        folder = ResultFolder(f"s3://bucket/results?endpoint_override={url}")
        folder.check_settings(SETTINGS)
        folder.write(make_table({"good": None, "late": "deadline-exceeded"}))
        folder.write(make_table({"bad": "not-a-video"}))
        again = pickle.loads(pickle.dumps(folder))  # as Ray sends it to its tasks
        again.check_settings(SETTINGS)
        assert again.find_done().find(["good", "bad", "late"]).tolist() == [True, True, False]
        assert len(again.find_done()) == 2
    finally:
        server.stop()


@pytest.mark.parametrize("text", ["", "{", "null", "7", "[1]"])
def test_settings_that_no_job_wrote_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "_job.json").write_text(text)
    with pytest.raises(InvalidRequest, match=r"_job.json of .* is not what a job writes"):
        ResultFolder(str(tmp_path)).check_settings(SETTINGS)


def test_a_file_that_holds_no_results_is_named(tmp_path: Path) -> None:
    folder = ResultFolder(str(tmp_path))
    folder.write(make_table({"a": None}))
    for content in (b"", b"PAR1 and no more"):
        (tmp_path / "part-0.parquet").write_bytes(content)
        with pytest.raises(InvalidRequest, match=r"part-0.parquet' cannot be read as results .*: remove it"):
            folder.find_done()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "part-0.parquet")
    with pytest.raises(InvalidRequest, match=r"part-0.parquet' cannot be read as results"):
        folder.find_done()
    (tmp_path / "part-0.parquet").unlink()
    assert folder.find_done().find(["a"]).tolist() == [True]
    assert read_ids(tmp_path) == ["a"]
