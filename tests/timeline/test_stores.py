"""Timelines of videos in object stores, and timelines that are written there: nothing lost, nothing doubled."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import weakref

import grpc
import pytest
from typer.testing import CliRunner

from clipserve.command_line import build_app
from clipserve.results import ScoredLabel
from clipserve.timeline.window import VideoFacts, Window
from clipserve.timeline.window_file import write_windows
from clipserve.timeline.window_lines import Record
from tests.watching import HANG_SECONDS, wait_for

pytestmark = pytest.mark.usefixtures("memory")

OUT = "memory://results/windows"


def parts(memory, folder=OUT):
    path = folder.removeprefix("memory:/")
    found = memory.ls(path, detail=False) if memory.isdir(path) else []
    return sorted(name for name in found if "/part-" in name)


def lines(memory, folder=OUT):
    return [json.loads(line) for name in parts(memory, folder) for line in memory.cat(name).splitlines()]


def numbers(memory, id=None, folder=OUT):
    return [line["window"] for line in lines(memory, folder) if "window" in line and id in (None, line["id"])]


def test_windows_are_lines_of_a_folder_in_a_store(run, memory, video):
    result = run(video, "--out", OUT, "--features")
    assert result.exit_code == 0, result.output
    assert f"{OUT}: 10 windows, 10 of them new, 0 videos failed" in result.stderr
    assert numbers(memory) == list(range(10))
    first, *_, last = lines(memory)
    assert (first["start"], first["labels"][0]["label"], len(first["features"])) == (0.0, "resting", 8)
    assert (last["windows"], last["duration"]) == (10, 10.0)
    settings = json.loads(memory.cat("/results/windows/job.json"))
    assert (settings["model"], settings["window"], settings["step"]) == ("x3d_m", 2.0, 1.0)


def test_what_is_done_is_not_sent_again(run, server, memory, video):
    run(video, "--out", OUT)
    result = run(video, "--out", OUT)
    assert f"{OUT}: 10 windows, 0 of them new" in result.stderr
    assert len(server.requests) == 1
    assert "was started with window 2.0, now 3.0" in run(video, "--out", OUT, "--window", 3).stderr


def test_a_timeline_that_broke_goes_on_with_the_window_that_is_missing(run, server, memory, video):
    server.failures = [(2, grpc.StatusCode.UNAVAILABLE), *[(0, grpc.StatusCode.UNAVAILABLE)] * 1000]
    result = run(video, "--out", OUT, "--timeout", 1, "--retry-seconds", 1)
    assert result.exit_code == 2
    assert f"{OUT}: 6 windows; the same command continues from here" in result.stderr
    assert numbers(memory) == list(range(6))
    server.failures, server.tops = [], (3,)
    assert "is another video than when" in run(video, "--out", OUT).stderr
    assert numbers(memory) == list(range(6))
    server.tops = (0, 0, 1, 1, 1, 2, 2, 2, 2, 3)
    assert run(video, "--out", OUT).exit_code == 0
    assert server.parameters()["first_window"] == 5, "the last one again"
    assert numbers(memory) == list(range(10))


def test_failures_of_the_server_are_tried_again(run, server, memory, tmp_path):
    for name in ("bad", "good", "unlucky"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    server.failures_by_content = {b"bad": "[not-a-video] no container", b"unlucky": "the server has a problem"}
    videos = [tmp_path / f"{name}.mp4" for name in ("bad", "good", "unlucky")]
    assert "2 videos failed" in run(*videos, "--out", OUT).stderr
    server.failures_by_content = {}
    server.requests.clear()
    assert "1 videos failed" in run(*videos, "--out", OUT).stderr
    assert server.videos == [b"unlucky"]
    for path in videos:
        assert numbers(memory, str(path)) == list(range(10))


def test_other_formats_are_written_whole_at_the_end(run, server, memory, video, tmp_path):
    local = tmp_path / "timeline.csv"
    assert run(video, "--out", local).exit_code == 0
    assert run(video, "--out", "memory://results/timeline.csv").exit_code == 0
    assert memory.cat("/results/timeline.csv").decode() == local.read_text()
    assert numbers(memory, folder="memory://results/timeline.csv.windows.jsonl") == list(range(10))
    assert run(video, "--segments", "--out", "memory://results/segments.csv").exit_code == 0
    rows = csv.DictReader(io.StringIO(memory.cat("/results/segments.csv").decode()))
    assert [row["label"] for row in rows] == ["resting", "running", "jumping", "swimming"]
    assert run(video, "--out", "memory://results/match.vtt").exit_code == 0
    assert memory.cat("/results/match.vtt").startswith(b"WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nresting")
    sent = len(server.requests)
    assert run(video, "--out", "memory://results/match.vtt", "--enter", 0.9).exit_code == 0
    assert memory.cat("/results/match.vtt") == b"WEBVTT\n", "other segments of the same windows"
    assert len(server.requests) == sent


def test_a_csv_of_many_windows_is_written_without_keeping_them(tmp_path):
    alive, most = weakref.WeakSet(), 0

    def records():
        nonlocal most
        for index in range(200):
            for number, name in enumerate(("a.mp4", "b.mp4")):
                window = Window(index, index, index + 1, index, index + 1, (ScoredLabel(name, number, 0.5),))
                alive.add(window)
                most = max(most, len(alive))
                yield Record(number, name, video=name, window=window)
        yield Record(0, "a.mp4", video="a.mp4", facts=VideoFacts(200.0, 200, False))

    write_windows(str(tmp_path / "windows.csv"), 1, records())
    rows = list(csv.DictReader((tmp_path / "windows.csv").open()))
    assert [(row["row"], row["window"]) for row in rows[:3]] == [("0", "0"), ("1", "0"), ("0", "1")]
    assert len(rows) == 400
    assert most <= 2


def test_an_address_that_ends_in_a_slash_gets_a_file_for_each_video(run, memory, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    assert (
        "The address of a folder in a store ends in a slash"
        in run(*videos, "--out", "memory://results/both.vtt").stderr
    )
    assert run(*videos, "--out", "memory://each/", "--format", "webvtt").exit_code == 0
    assert [name for name in memory.ls("/each", detail=False) if "." in name] == [
        "/each/a.vtt", "/each/b.vtt", "/each/windows.jsonl",
    ]  # fmt: skip


def test_pages_and_pictures_may_be_in_a_store(run, memory, video):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    result = run(video, "--html", "memory://results/page.html", "--png", "memory://results/picture.png")
    assert result.exit_code == 0, result.output
    assert b"<html" in memory.cat("/results/page.html")
    assert memory.cat("/results/picture.png").startswith(b"\x89PNG")


def test_videos_of_a_store_are_sources(run, server, memory):
    for name in ("1.mp4", "2.mp4", "notes.txt"):
        memory.pipe(f"/videos/{name}", name.encode())
    assert run("memory://videos/", "--out", OUT).exit_code == 0
    assert sorted(server.videos) == [b"1.mp4", b"2.mp4"]
    assert numbers(memory, "memory://videos/2.mp4") == list(range(10))
    assert run("memory://videos/2.mp4", "--out", "memory://results/labels.json").exit_code == 0
    assert list(json.loads(memory.cat("/results/labels.json"))["labels"]) == ["memory://videos/2.mp4"]


def test_true_stretches_may_name_videos_of_a_store(server, memory, tmp_path):
    memory.pipe("/videos/1.mp4", b"1")
    (tmp_path / "truth.csv").write_text("path,start,end,label\nmemory://videos/1.mp4,2.5,5.5,running\n")
    words = ["evaluate-timelines", tmp_path / "truth.csv", "--url", server.url, "--model", "x3d_m"]
    result = CliRunner().invoke(build_app(), [*map(str, words), "--json", "memory://results/report.json"])
    assert result.exit_code == 0, result.output
    assert json.loads(memory.cat("/results/report.json"))["average"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "nonsense://a/b"], "no store opens"),
        (["--out", OUT, "--segments"], "the name must end in"),
        (["--out", OUT, "--json"], "leave out --json"),
    ],
)
def test_wrong_outputs_are_refused(run, server, video, words, message):
    result = run(video, *words)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert not server.requests


def test_a_killed_program_goes_on_in_a_bucket(server, bucket, video):
    """With a part for each window, so that it dies as it stores one."""
    server.windows, server.per_response, server.hold_after = 60, 2, 10
    bucket.put(match=b"video")
    program = "from clipserve.jobs import line_parts; line_parts.PART_SECONDS = {}; {}"
    main = "from clipserve.command_line import main; main()"
    words = ["timeline", f"s3://{bucket.name}/match", "--out", f"s3://{bucket.name}/windows", "--url", server.url]
    process = subprocess.Popen(
        [sys.executable, "-c", program.format(0, main), *words, "--model", "x3d_m"], stderr=subprocess.DEVNULL
    )
    assert wait_for(lambda: len(bucket.list("windows")) >= 8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stored = len(bucket.list("windows")) - 1
    server.hold_after = None
    server.release.set()
    command = [sys.executable, "-c", program.format(60, main), *words, "--model", "x3d_m"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert server.parameters()["first_window"] >= stored - 1
    found = [
        json.loads(line) for key in bucket.list("windows") for line in bucket.get(key).splitlines() if "part" in key
    ]
    assert [line["window"] for line in found if "window" in line] == list(range(60))
    assert {line["id"] for line in found} == {f"s3://{bucket.name}/match"}
    assert server.videos == [b"video"] * 2
