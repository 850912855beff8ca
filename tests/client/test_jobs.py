"""Jobs that are killed and started again: no row lost, none twice, none torn."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from clipserve import InvalidRequest, read_name
from clipserve.command_line import build_app
from clipserve.jobs.result_file import ResultFile
from clipserve_server.triton import Triton
from tests.watching import HANG_SECONDS, server_of, wait_for

NOT_A_VIDEO = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")
PROGRAM = "from clipserve.command_line import main; main()"


@pytest.fixture
def folder(tmp_path):
    """Forty videos, each with its own bytes."""
    (tmp_path / "videos").mkdir()
    for number in range(40):
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(b"%d" % number)
    return tmp_path


@pytest.fixture
def run(triton, folder):
    """Run `clipserve classify` on the videos into results.jsonl."""

    def run_command(*arguments, source=None, url=None):
        sources = [str(source or folder / "videos")]
        return CliRunner().invoke(
            build_app(),
            ["classify", *sources, "--out", str(folder / "results.jsonl"), "--url", url or triton.url, *arguments],
        )

    return run_command


def begin(source, out, url, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "classify", str(source), "--out", str(out), "--url", url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_rows(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def numbers(out):
    return [row["row"] for row in read_rows(out)]


def wait_for_rows(out, count, process):
    end = time.monotonic() + HANG_SECONDS
    while not (out.exists() and len(out.read_bytes().splitlines()) >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_writes_a_line_for_each_video_in_order(run, triton, folder):
    triton.failures_by_content[b"7"] = NOT_A_VIDEO
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "40 rows, 40 of them new, 1 failed" in result.stderr
    rows = read_rows(folder / "results.jsonl")
    assert [row["row"] for row in rows] == list(range(40))
    assert rows[3].keys() == {"row", "id", "video", "model", "labels", "truncated", "milliseconds"}
    assert rows[7].keys() == {"row", "id", "video", "error"}
    assert rows[7]["error"]["class"] == "NotAVideo"


def test_a_finished_job_has_nothing_left_to_do(run, triton, folder):
    run()
    before = (folder / "results.jsonl").read_bytes()
    assert run().exit_code == 0
    assert (folder / "results.jsonl").read_bytes() == before
    assert len(triton.requests) == 40


def test_a_killed_client_continues(triton, folder):
    out = folder / "results.jsonl"
    for rows in (5, 12, 25):
        triton.held = {b"%d" % number for number in range(rows, 40)}  # it must not end before it is killed
        process = begin(folder / "videos", out, triton.url)
        wait_for_rows(out, rows, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        triton.release.set()
        triton.release.clear()
    triton.held.clear()
    process = begin(folder / "videos", out, triton.url)
    _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, said
    assert sorted(numbers(out)) == list(range(40))
    # Only videos that were in flight are classified again: at most the rows that run ahead.
    assert len(triton.requests) <= 40 + 3 * 5 * 4


def test_a_job_over_names_that_are_not_utf_8_goes_on_after_a_kill_and_doubles_nothing(triton, folder):
    triton.delay = 0.02
    names = [b"%d caf\xe9.mp4" % number for number in range(20)]
    for number, name in enumerate(names):
        (folder / "videos" / os.fsdecode(name)).write_bytes(b"%d" % (40 + number))
    odd = {"id": "\ud800", "path": "videos/0.mp4", "label": "\udfff \u202e"}
    (folder / "list.jsonl").write_text("".join(f"{line}\n" for line in (json.dumps(odd), json.dumps("videos/a\udce9"))))
    out = folder / "results.jsonl"
    sources = [folder / "videos", folder / "list.jsonl"]
    process = begin(sources[0], out, triton.url, str(sources[1]))
    wait_for_rows(out, 15, process)
    process.kill()
    process.communicate()
    _, said = begin(sources[0], out, triton.url, str(sources[1])).communicate(timeout=HANG_SECONDS)
    assert "62 rows" in said
    assert "1 failed" in said
    rows = read_rows(out)
    assert sorted(row["row"] for row in rows) == list(range(62))
    found = {os.path.basename(os.fsencode(read_name(row["video"]))) for row in rows}  # noqa: PTH119
    assert found == {*names, *(b"%d.mp4" % number for number in range(40)), b"a\xe9"}
    (row,) = [row for row in rows if row["row"] == 60]
    assert (row["id"], row["label"]) == (r"\ud800", "\\udfff \u202e")
    assert "\u202e" not in out.read_text()  # JSON says it in ASCII


@pytest.mark.parametrize("torn", [b'{"row": 40, "id": "x', b'{"row": 40, "id": "x", "labels": []}', b"\x00\x00"])
def test_a_torn_last_line_is_cut_off(run, folder, torn):
    out = folder / "results.jsonl"
    run()
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:30]) + torn)
    assert run().exit_code == 0
    assert numbers(out) == list(range(40))


def test_failures_that_are_not_about_the_video_are_retried(run, triton, folder):
    out = folder / "results.jsonl"
    triton.failures_by_content[b"3"] = NOT_A_VIDEO
    triton.failures_by_content[b"5"] = (grpc.StatusCode.INTERNAL, "the network broke")
    (folder / "videos" / "9.mp4").rename(folder / "away")
    (folder / "videos" / "9.mp4").symlink_to("nowhere")
    (folder / "list.csv").write_text("path\n" + "".join(f"videos/{number}.mp4\n" for number in range(40)))
    assert run(source=folder / "list.csv").exit_code == 1
    failed = [row["row"] for row in read_rows(out) if "error" in row]
    assert failed == [3, 5, 9]
    triton.failures_by_content.clear()
    (folder / "away").replace(folder / "videos" / "9.mp4")
    assert run(source=folder / "list.csv").exit_code == 1
    assert sorted(numbers(out)) == list(range(40))
    assert [row["row"] for row in read_rows(out) if "error" in row] == [3]


def test_two_jobs_do_not_write_to_one_file(run, triton, folder):
    triton.hold = True
    process = begin(folder / "videos", folder / "results.jsonl", triton.url)
    try:
        while not triton.in_flight:
            time.sleep(0.01)
        result = run()
        assert result.exit_code == 2
        assert "another job is writing" in result.stderr
    finally:
        process.kill()
        process.communicate()
    triton.release.set()
    triton.hold = False
    assert run().exit_code == 0


def test_two_jobs_do_not_write_to_one_file_through_a_link(tmp_path):
    (tmp_path / "link.jsonl").symlink_to("results.jsonl")
    (tmp_path / "folder").symlink_to(".")
    with ResultFile(tmp_path / "results.jsonl", {"model": "x3d_m"}):
        for name in ("link.jsonl", "folder/results.jsonl"):
            with pytest.raises(InvalidRequest, match=f"another job is writing to '{tmp_path}/{name}'"):
                ResultFile(tmp_path / name, {"model": "x3d_m"})
    with ResultFile(tmp_path / "link.jsonl", {"model": "x3d_m"}):
        assert not (tmp_path / "link.jsonl.job").exists()


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no /dev/shm")  # noqa: PTH112
def test_a_job_below_dev_keeps_its_rows(run, triton):
    """A job that is continued replaces its file, without the failures that it tries again."""
    triton.failures_by_content[b"5"] = (grpc.StatusCode.INTERNAL, "the network broke")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        out = Path(folder) / "results.jsonl"
        assert run("--out", str(out)).exit_code == 1
        triton.failures_by_content.clear()
        assert run("--out", str(out)).exit_code == 0
        assert sorted(numbers(out)) == list(range(40))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "mvit_base_16x4"], "model 'x3d_m', now 'mvit_base_16x4'"),
        (["--top-k", "2"], "top_k 5, now 2"),
        (["--sampling", "clip"], "sampling 'uniform', now 'clip'"),
        (["--shard", "1/2"], "shard '1/1', now '1/2'"),
    ],
)
def test_other_settings_are_refused(run, folder, arguments, said):
    run()
    before = (folder / "results.jsonl").read_bytes()
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert (folder / "results.jsonl").read_bytes() == before


def test_a_deadline_may_change(run):
    run("--timeout", "30")
    assert run("--timeout", "60", "--parallel", "2").exit_code == 0


def test_a_source_that_has_changed_is_refused_but_may_grow_at_its_end(run, folder):
    run()
    (folder / "videos" / "40.mp4").write_bytes(b"40")
    assert run().exit_code == 0
    assert numbers(folder / "results.jsonl") == list(range(41))
    (folder / "videos" / "20a.mp4").write_bytes(b"20a")
    result = run()
    assert result.exit_code == 2
    assert "row 21" in result.stderr
    assert "the source has changed" in result.stderr
    (folder / "videos" / "20a.mp4").unlink()
    (folder / "videos" / "40.mp4").unlink()
    assert "not in the source any more" in run().stderr


@pytest.mark.parametrize("name", ["results.csv", "results"])
def test_a_name_that_promises_another_format_is_wrong_usage(run, folder, name):
    result = run("--out", str(folder / name))
    assert result.exit_code == 2
    assert "JSON lines" in result.stderr
    assert not (folder / name).exists()


def test_a_missing_folder_is_reported(run, folder):
    result = run("--out", str(folder / "nowhere" / "results.jsonl"))
    assert result.exit_code == 2
    assert "The folder must exist" in result.stderr


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_a_regular_file_takes_rows(run, folder, kind):
    """Reading /dev/full, which holds zeros without end, or a pipe, would hang."""
    out = folder / "results.jsonl"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/full")}[kind](out)
    result = run()
    assert result.exit_code == 2
    assert "results.jsonl' is not a regular file" in result.stderr
    assert not (folder / "results.jsonl.job").exists()


def test_a_file_that_no_job_wrote_is_left_alone(run, folder):
    (folder / "results.jsonl").write_text("mine\n")
    result = run()
    assert result.exit_code == 2
    assert "choose another --out" in result.stderr
    assert (folder / "results.jsonl").read_text() == "mine\n"


@pytest.mark.parametrize("settings", ["", "{", "5", '["model"]', "[" * 100_000])
def test_settings_that_no_job_wrote_are_refused(run, folder, settings):
    (folder / "results.jsonl").write_text("mine\n")
    (folder / "results.jsonl.job").write_text(settings)
    result = run()
    assert result.exit_code == 2
    assert "does not show that a job wrote it: choose another --out" in result.stderr.replace("\n", " ")
    assert (folder / "results.jsonl").read_text() == "mine\n"
    assert (folder / "results.jsonl.job").read_text() == settings


def test_shards_divide_the_source(triton, folder):
    for shard in (1, 2, 3):
        arguments = ["--shard", f"{shard}/3", "--out", str(folder / f"{shard}.jsonl"), "--url", triton.url]
        assert CliRunner().invoke(build_app(), ["classify", str(folder / "videos"), *arguments]).exit_code == 0
    shares = [numbers(folder / f"{shard}.jsonl") for shard in (1, 2, 3)]
    assert shares == [list(range(start, 40, 3)) for start in range(3)]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_refused(run, shard):
    result = run("--shard", shard)
    assert result.exit_code == 2
    assert "2/4" in result.stderr


@pytest.mark.parametrize("option", ["--retry-seconds", "--patience"])
def test_a_server_that_stays_away_ends_the_job_with_what_is_done(run, folder, triton, option):
    triton.models["x3d_m"].ready = False
    result = run(option, "0.5", "--timeout", "0.5")
    assert result.exit_code == 2
    assert "continues from here" in result.stderr
    assert ("--patience is now called --retry-seconds" in result.stderr) == (option == "--patience")
    assert numbers(folder / "results.jsonl") == []
    triton.models["x3d_m"].ready = True
    assert run("--retry-seconds", "0.5").exit_code == 0


@pytest.mark.long
def test_a_job_waits_for_a_real_server_that_dies_or_stops(onnx_repository, motion_videos, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    videos = sorted(motion_videos.glob("*.mp4"))
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{videos[number % 4]}\n" for number in range(300)))
    out = tmp_path / "results.jsonl"
    port, process = 0, None
    try:
        for end, rows in ((signal.SIGKILL, 30), (signal.SIGTERM, 150), (None, None)):
            with Triton(onnx_repository, models=["motion"], http_port=0, grpc_port=port, metrics_port=0) as server:
                port = int(server.grpc_url.rpartition(":")[2])
                process = process or begin(
                    tmp_path / "list.csv", out, server.grpc_url, "--model", "motion", "--retry-seconds", "120"
                )
                if end is None:
                    _, said = process.communicate(timeout=2 * HANG_SECONDS)
                else:
                    wait_for_rows(out, rows, process)
                    end_triton(server, end)
    finally:
        if process:
            process.kill()
    rows = read_rows(out)
    assert [row["error"] for row in rows if "error" in row] == []
    assert process.returncode == 0, said
    assert [row["row"] for row in rows] == list(range(300))
    for row in rows:
        assert row["labels"][0]["label"] in row["video"]


def end_triton(server, end):
    """Send a signal to Triton's own process, and wait for its end."""
    server_of(server).send_signal(end)
    assert wait_for(server.find_failure)
