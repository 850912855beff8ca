"""A job whose results are in an object store: it goes on where it stopped, and no row is there twice."""

import json

import grpc
import pytest
from typer.testing import CliRunner

from clipserve import InvalidRequest, NotAVideo, Row, ServerFailed, VideoClassifier
from clipserve.command_line import build_app
from clipserve.jobs.job import Shard, describe_settings, run_job
from clipserve.jobs.result_file import ResultFile
from clipserve.options import RequestOptions

fsspec = pytest.importorskip("fsspec")

SETTINGS = {"model": "x3d_m"}


@pytest.fixture
def folder(memory):
    """An address of a folder that is not there yet."""
    return "memory://results"


def read_rows(folder):
    system, path = fsspec.core.url_to_fs(folder)
    found = sorted(name for name in system.ls(path, detail=False) if "/part-" in name)
    return [json.loads(line) for name in found for line in system.cat(name).splitlines()]


def make_row(number):
    return Row(f"v{number}", f"v{number}", error=NotAVideo("no"))


def test_rows_are_stored_in_parts_and_found_again(folder):
    with ResultFile(folder, SETTINGS) as results:
        for number in (0, 1, 5):
            results.append(number, make_row(number))
    with ResultFile(folder, SETTINGS) as results:
        assert results.results == 3
        assert [results.has(number, f"v{number}") for number in range(7)] == [
            True,
            True,
            False,
            False,
            False,
            True,
            False,
        ]
        results.append(2, make_row(2))
        assert len(read_rows(folder)) == 3  # not stored yet
    assert [row["row"] for row in read_rows(folder)] == [0, 1, 5, 2]


def test_failures_of_the_server_are_tried_again(folder):
    with ResultFile(folder, SETTINGS) as results:
        results.append(0, make_row(0))
        results.append(1, Row("v1", "v1", error=ServerFailed("no")))
    with ResultFile(folder, SETTINGS) as results:
        assert (results.results, results.failures) == (1, 1)
        results.append(1, make_row(1))
    assert [row["row"] for row in read_rows(folder)] == [0, 1]


def test_a_job_that_stored_no_line_has_not_begun(folder):
    ResultFile(folder, {"model": "a name with a mistake"}).close()
    with ResultFile(folder, SETTINGS) as results:
        results.append(0, make_row(0))
    with ResultFile(folder, SETTINGS) as results:
        assert results.results == 1


def test_other_settings_other_videos_and_other_files_are_refused(folder):
    with ResultFile(folder, SETTINGS) as results:
        results.append(0, make_row(0))
    with pytest.raises(InvalidRequest, match="was started with model 'x3d_m', now 'x3d_s'"):
        ResultFile(folder, {"model": "x3d_s"})
    with ResultFile(folder, SETTINGS) as results, pytest.raises(InvalidRequest, match="about another video"):
        results.has(0, "other")
    fsspec.filesystem("memory").pipe("/else/data.txt", b"")
    with pytest.raises(InvalidRequest, match="is not empty, and no job wrote it"):
        ResultFile("memory://else", SETTINGS)


def test_two_jobs_in_one_folder_are_noticed(folder):
    with ResultFile(folder, SETTINGS) as first, ResultFile(folder, SETTINGS) as second:
        first.append(0, make_row(0))
        second.append(0, make_row(0))
    with pytest.raises(InvalidRequest, match=r"row 0 is in .* twice"):
        ResultFile(folder, SETTINGS)


def test_a_store_that_refuses_is_an_error(folder):
    with pytest.raises(InvalidRequest, match="no store opens"):
        ResultFile("nonsense://results", SETTINGS)


def test_a_job_that_stopped_goes_on(folder, triton):
    """The server fails from the fifth video on; the next run classifies what is left."""
    videos = [b"%d" % number for number in range(8)]
    options = RequestOptions()

    def run():
        with (
            VideoClassifier("x3d_m", triton.url) as classifier,
            ResultFile(folder, describe_settings("x3d_m", Shard(), options)) as results,
        ):
            run_job(classifier, videos, results, shard=Shard(), options=options, parallel=1, progress=False)
            return results.results

    triton.failures_by_content = dict.fromkeys(videos[4:], (grpc.StatusCode.INTERNAL, "broken"))
    assert run() == 8
    triton.failures_by_content = {}
    sent = len(triton.requests)
    assert run() == 8
    assert len(triton.requests) == sent + 4
    assert sorted(row["row"] for row in read_rows(folder)) == list(range(8))
    assert all("error" not in row for row in read_rows(folder))


def test_the_command_writes_a_folder_of_a_store(folder, triton, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.mp4").write_bytes(b"%d" % number)
    ask = ["classify", str(tmp_path), "--out", folder, "--url", triton.url]
    first = CliRunner().invoke(build_app(), ask)
    assert first.exit_code == 0, first.stderr
    assert "3 rows, 3 of them new" in first.stderr
    assert "3 rows, 0 of them new" in CliRunner().invoke(build_app(), ask).stderr
    assert len(triton.requests) == 3
    assert [row["id"] for row in read_rows(folder)] == [str(tmp_path / f"{number}.mp4") for number in range(3)]
