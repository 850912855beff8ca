"""`clipserve timeline`: files that go on where they stopped, and the formats of other tools."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipserve.command_line import build_app
from clipserve.timeline.formats import VideoSegments, name_files, write_fiftyone
from tests.timeline.fake_timelines import FakeTimelines, start_server
from tests.watching import HANG_SECONDS, wait_for

PROGRAM = "from clipserve.command_line import main; main()"
NOT_A_VIDEO = "[not-a-video] no container that is opened here"


@pytest.fixture
def videos(server, tmp_path):
    """One that is none, a good one, and one that the server fails to answer for now."""
    found = [tmp_path / f"{name}.mp4" for name in ("bad", "good", "unlucky")]
    for path in found:
        path.write_bytes(path.stem.encode())
    server.failures_by_content = {b"bad": NOT_A_VIDEO, b"unlucky": "the server has a problem"}
    return found


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(path, id=None):
    return [line["window"] for line in lines(path) if "window" in line and id in (None, line["id"])]


def test_without_options_a_table_shows_the_segments(run, video):
    result = run(video)
    assert result.exit_code == 0, result.output
    words = [line.split() for line in result.stdout.splitlines()]
    rows = [[word for word in row if word not in "│┃"] for row in words if "s" in row]
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("0.0", "2.5", "resting"), ("2.5", "5.5", "running"), ("5.5", "9.5", "jumping"), ("9.5", "11.0", "swimming"),
    ]  # fmt: skip


def test_json_lines_hold_every_window_and_the_end(run, video, tmp_path):
    out = tmp_path / "windows.jsonl"
    result = run(video, "--out", out, "--top-k", 2)
    assert result.exit_code == 0, result.output
    found = lines(out)
    assert found[4] == {
        "row": 0, "id": str(video), "video": str(video), "window": 4, "start": 4.0, "end": 6.0, "start_frame": 100,
        "end_frame": 150, "labels": [
            {"label": "running", "index": 1, "score": pytest.approx(0.8)},
            {"label": "resting", "index": 0, "score": pytest.approx(0.05)},
        ],
    }  # fmt: skip
    assert found[-1] == {
        "row": 0, "id": str(video), "video": str(video), "windows": 10, "duration": 10.0, "truncated": False,
        "codec": "h264", "fps": 25.0,
    }  # fmt: skip
    assert "10 windows, 10 of them new, 0 videos failed" in result.stderr


def test_csv_has_a_line_for_each_window(run, video, tmp_path):
    out = tmp_path / "timeline.csv"
    assert run(video, "--out", out, "--top-k", 2).exit_code == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 10
    assert {**rows[3], "score_1": "", "score_2": ""} == {
        "row": "0", "id": str(video), "video": str(video), "window": "3", "start": "3.0", "end": "5.0",
        "start_frame": "75", "end_frame": "125", "label_1": "running", "score_1": "", "label_2": "resting",
        "score_2": "",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["windows.jsonl", "timeline.csv"])
def test_the_same_command_goes_on_with_the_window_that_is_missing(run, server, video, tmp_path, name):
    out = tmp_path / name
    whole = tmp_path / f"whole.{name}"
    assert run(video, "--out", whole).exit_code == 0
    text = whole.read_text()
    for kept in (0, 1, 200, len(text) // 2, len(text) - 1, len(text)):
        out.write_text(text[:kept])  # as a killed program leaves it, in the middle of a line
        (tmp_path / f"{name}.job").write_text((tmp_path / f"whole.{name}.job").read_text())
        result = run(video, "--out", out)
        assert result.exit_code == 0, result.output
        if name.endswith("csv"):
            assert out.read_text() == text
        else:
            assert lines(out)[:-1] == lines(whole)[:-1]
            assert lines(out)[-1]["windows"] == 10
    assert server.sent < 5 * 10, "known windows are not asked for again"


def test_a_video_that_is_done_is_not_sent_again(run, server, video, tmp_path):
    out = tmp_path / "windows.jsonl"
    run(video, "--out", out)
    result = run(video, "--out", out)
    assert "10 windows, 0 of them new" in result.stderr
    assert len(server.requests) == 1


def test_a_csv_that_is_done_asks_the_server_nothing(run, server, videos, tmp_path):
    server.windows_by_content = {b"bad": 0}
    out = tmp_path / "timeline.csv"
    assert "20 windows, 20 of them new, 2 videos failed" in run(*videos, "--out", out).stderr
    text = out.read_text()
    server.failures_by_content = {}
    server.requests.clear()
    result = run(*videos, "--out", out)
    assert (result.exit_code, server.videos) == (1, [b"unlucky"])
    server.requests.clear()
    result = run(*videos, "--out", out)
    assert "20 windows, 0 of them new, 1 videos failed" in result.stderr
    assert server.requests == []
    assert out.read_text() == text
    job = tmp_path / "timeline.csv.job"
    job.write_text(job.read_text() + '{"row": 1, "id"')  # as a killed program leaves it
    assert run(*videos, "--out", out).exit_code == 1
    assert server.requests == []


def cut(out, count):
    """Leave so many windows in a file, as if the command had been killed."""
    header = out.suffix == ".csv"
    out.write_text("".join(out.read_text().splitlines(keepends=True)[: count + header]))


@pytest.mark.parametrize("name", ["timeline.csv", "windows.jsonl"])
def test_a_video_that_was_replaced_is_refused(run, server, video, tmp_path, name):
    out = tmp_path / name
    assert run(video, "--out", out).exit_code == 0
    cut(out, 6)
    before, tops = out.read_text(), server.tops
    video.write_bytes(b"goals")  # of the same size
    changes = [{"tops": (3,)}, {"windows": 4}, {"change": lambda record: record.update(end_frame=10_000)}]
    for change in changes:
        kept = {key: getattr(server, key) for key in change}
        for key, value in change.items():
            setattr(server, key, value)
        result = run(video, "--out", out)
        assert result.exit_code == 2
        assert "is another video than when" in result.stderr
        assert "Restore the video, or choose another --out" in result.stderr
        assert out.read_text() == before
        for key, value in kept.items():
            setattr(server, key, value)
    assert server.tops == tops
    assert "10 windows, 4 of them new" in run(video, "--out", out).stderr
    assert server.parameters()["first_window"] == 5


def test_scores_of_another_server_may_differ_a_little(run, server, video, tmp_path):
    out = tmp_path / "windows.jsonl"
    run(video, "--out", out)
    cut(out, 6)
    server.change = lambda record: record["top"][0].__setitem__(0, record["top"][0][0] - 0.02)
    assert "10 windows, 4 of them new" in run(video, "--out", out).stderr


def test_an_end_that_is_missing_is_written_with_what_is_known_of_the_video(run, server, video, tmp_path):
    out = tmp_path / "windows.jsonl"
    run(video, "--out", out)
    text = out.read_text()
    cut(out, 10)
    assert "10 windows, 0 of them new" in run(video, "--out", out).stderr
    assert out.read_text() == text
    assert lines(out)[-1]["duration"] == 10.0


@pytest.mark.parametrize("name", ["timeline.csv", "windows.jsonl"])
@pytest.mark.parametrize("count", [6, 10])
def test_a_file_of_another_size_is_another_video(run, server, video, tmp_path, name, count):
    out = tmp_path / name
    run(video, "--out", out)
    if count < 10:
        cut(out, count)
    before = out.read_text()
    video.write_bytes(b"match, the second half")
    server.windows = 15
    result = run(video, "--out", out)
    assert result.exit_code == 2
    assert "is another video than when" in result.stderr
    assert "it had 5 bytes, and has 22. Restore the video, or choose another --out" in result.stderr
    assert (len(server.requests), out.read_text()) == (1, before)
    video.write_bytes(b"match")  # restored, with another time of change
    server.windows = 10
    assert "10 windows" in run(video, "--out", out).stderr


def test_a_video_that_failed_may_be_replaced(run, server, video, tmp_path):
    out = tmp_path / "timeline.csv"
    server.windows_by_content, server.failures_by_content = {b"match": 0}, {b"match": NOT_A_VIDEO}
    assert "0 windows, 0 of them new, 1 videos failed" in run(video, "--out", out).stderr
    video.write_bytes(b"a repaired match")
    assert "10 windows, 10 of them new, 0 videos failed" in run(video, "--out", out).stderr
    assert "10 windows, 0 of them new, 0 videos failed" in run(video, "--out", out).stderr


def test_other_settings_and_other_videos_are_refused(run, video, tmp_path):
    out = tmp_path / "windows.jsonl"
    run(video, "--out", out)
    result = run(video, "--out", out, "--window", 3)
    assert result.exit_code == 2
    assert "was started with window 2.0, now 3.0" in result.stderr
    other = tmp_path / "other.mp4"
    other.write_bytes(b"other")
    assert "video 0 of" in run(other, "--out", out).stderr
    end = out.read_text().splitlines()[-1]
    for line in ("no line of ours", end.replace("10.0", '"x"'), end.replace('"row": 0', '"row": Infinity')):
        out.write_text(f"{line}\n")
        assert "has a line that no job wrote" in run(video, "--out", out).stderr
    out.write_text(f"{end}\n{end}\n")
    assert "goes on after the end of video 0" in run(video, "--out", out).stderr
    table = tmp_path / "timeline.csv"
    run(video, "--out", table)
    table.write_text(table.read_text() + "0,a\rb,c,10,10.0,12.0,250,300,running,0.9\n")
    assert "has a line that no job wrote" in run(video, "--out", table).stderr


def test_failures_are_written_and_tried_again_unless_they_are_about_the_video(run, server, videos, tmp_path):
    out = tmp_path / "windows.jsonl"
    result = run(*videos, "--out", out, "--parallel", 1)
    assert result.exit_code == 1
    assert "2 videos failed" in result.stderr
    assert [line["error"]["code"] for line in lines(out) if "error" in line] == ["not-a-video", "server-failed"]
    server.failures_by_content = {}
    server.requests.clear()
    assert run(*videos, "--out", out).exit_code == 1
    assert server.videos == [b"unlucky"]
    for path in videos:
        assert numbers(out, str(path)) == list(range(10))


@pytest.mark.parametrize("name", ["w.csv", "w.jsonl"])
def test_a_page_says_which_videos_failed_and_why(run, server, videos, tmp_path, name):
    """One before its first window, one in its middle, and one after its last, which another run tries again."""
    server.failures = [(0, NOT_A_VIDEO), (2, "[crashed] this video crashes decoders")]
    page = tmp_path / "page.html"
    for _ in range(2):
        assert run(*videos, "--parallel", 1, "--out", tmp_path / name, "--html", page).exit_code == 1
        for words in ("no container", "crashes decoders", "the server has a problem"):
            assert page.read_text().count(words) == 1


def test_a_video_that_fails_is_named_and_has_no_result(run, server, video, tmp_path):
    server.failures_by_content, server.windows_by_content = {b"text": NOT_A_VIDEO}, {b"text": 0}
    text = tmp_path / "text.mp4"
    text.write_bytes(b"text")
    result = run(text)
    assert result.exit_code == 1
    assert "no container" in result.stderr
    assert "no label reaches" not in result.output
    (tmp_path / "out").mkdir()
    result = run(text, video, "--out", tmp_path / "out", "--format", "webvtt")
    assert result.exit_code == 1
    assert "text.mp4" in result.stderr
    assert "no container" in result.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.vtt")] == ["match.vtt"]


@pytest.mark.parametrize("name", ["timeline.csv", pytest.param("windows.jsonl", marks=pytest.mark.long)])
def test_a_killed_program_loses_no_window_and_doubles_none(server, video, tmp_path, name):
    server.windows, server.per_response, server.hold_after = 60, 2, 10
    out = tmp_path / name
    command = [sys.executable, "-c", PROGRAM, "timeline", str(video), "--out", str(out), "--url", server.url]
    process = subprocess.Popen([*command, "--model", "x3d_m"], stderr=subprocess.DEVNULL)
    assert wait_for(lambda: out.exists() and out.read_text().count("\n") >= 20)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    server.hold_after = None
    server.release.set()
    done = subprocess.run([*command, "--model", "x3d_m"], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    found = numbers(out) if name.endswith("jsonl") else [int(row["window"]) for row in csv.DictReader(out.open())]
    assert found == list(range(60))
    assert server.parameters()["first_window"] >= 19


def test_a_killed_server_is_waited_for(server, video, tmp_path):
    server.windows, server.per_response, server.hold_after = 60, 2, 10
    out = tmp_path / "windows.jsonl"
    command = [sys.executable, "-c", PROGRAM, "timeline", str(video), "--out", str(out), "--url", server.url]
    process = subprocess.Popen([*command, "--model", "x3d_m"], stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: out.exists() and out.read_text().count("\n") >= 20)
    port = int(server.url.rpartition(":")[2])
    server.running_server.stop(0).wait(HANG_SECONDS)  # before the release, after which it might send all windows
    server.release.set()
    time.sleep(1)
    other = FakeTimelines(windows=60, per_response=2)
    other.running_server = start_server(other, port)
    _, text = process.communicate(timeout=HANG_SECONDS)
    other.running_server.stop(None).wait(HANG_SECONDS)
    assert process.returncode == 0, text
    assert numbers(out) == list(range(60))
    assert other.parameters()["first_window"] >= 19


def test_many_videos_and_shards(run, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.mp4").write_bytes(b"%d" % number)
    for part in (1, 2):
        assert run(folder, "--out", tmp_path / f"{part}.jsonl", "--shard", f"{part}/2").exit_code == 0
    found = [{line["id"] for line in lines(tmp_path / f"{part}.jsonl")} for part in (1, 2)]
    assert found == [{str(folder / f"{n}.mp4") for n in (0, 2)}, {str(folder / f"{n}.mp4") for n in (1, 3)}]


EXPECTED = [(0, 2.5, "resting"), (2.5, 5.5, "running"), (5.5, 9.5, "jumping"), (9.5, 11, "swimming")]


def test_segments_as_csv_have_the_columns_of_ground_truth(run, video, tmp_path):
    out = tmp_path / "segments.csv"
    assert run(video, "--segments", "--out", out).exit_code == 0
    rows = list(csv.DictReader(out.open()))
    assert [(float(row["start"]), float(row["end"]), row["label"]) for row in rows] == EXPECTED
    assert [(row["path"], row["score"]) for row in rows[:1]] == [(str(video), "0.800000")]
    assert numbers(tmp_path / "segments.csv.windows.jsonl") == list(range(10))


def test_webvtt(run, server, video, tmp_path):
    server.change = lambda record: record["top"].__setitem__(0, [0.8, record["top"][0][1], "a <b> & c"])
    assert run(video, "--out", tmp_path / "match.vtt", "--top-k", 1).exit_code == 0
    text = (tmp_path / "match.vtt").read_text()
    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\na &lt;b&gt; &amp; c\n\n00:00:02.500 --> ")


def test_elan(run, video, tmp_path):
    assert run(video, "--out", tmp_path / "match.elan.csv").exit_code == 0
    rows = list(csv.reader((tmp_path / "match.elan.csv").open()))
    assert rows[0] == ["Tier", "Begin Time", "End Time", "Annotation"]
    assert rows[2] == ["running", "00:00:02.500", "00:00:05.500", "running"]


def test_via(run, video, tmp_path):
    assert run(video, "--out", tmp_path / "match.via.csv").exit_code == 0
    text = (tmp_path / "match.via.csv").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    names = header[-1].removeprefix("# CSV_HEADER = ").split(",")
    rows = list(csv.DictReader(io.StringIO(text.partition(header[-1] + "\n")[2]), names))
    assert json.loads(rows[1]["file_list"]) == ["match.mp4"]
    assert json.loads(rows[1]["temporal_coordinates"]) == [2.5, 5.5]
    assert json.loads(rows[1]["spatial_coordinates"]) == []
    assert json.loads(rows[1]["metadata"]) == {"1": "running"}
    assert len({row["metadata_id"] for row in rows}) == 4


def test_fiftyone(run, video, tmp_path):
    assert run(video, "--out", tmp_path / "labels.json").exit_code == 0
    labels = json.loads((tmp_path / "labels.json").read_text())["labels"]
    assert list(labels) == [str(video)]
    # 2.5 seconds of 25 frames: 0 to 62, counted from 1; the last one is part of it.
    assert labels[str(video)][0] == {"label": "resting", "support": [1, 63], "confidence": 0.8}
    assert [one["support"][0] - 1 for one in labels[str(video)][1:]] == [
        one["support"][1] for one in labels[str(video)][:-1]
    ]


def test_fiftyone_has_the_address_of_a_video_that_is_elsewhere():
    for address in ("s3://bucket/match.mp4", "https://example.org/match.mp4"):
        text = "".join(write_fiftyone([VideoSegments(address, [])]))
        assert list(json.loads(text)["labels"]) == [address]


def test_a_folder_gets_a_file_for_each_video(run, server, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    result = run(*videos, "--out", tmp_path / "both.vtt")
    assert result.exit_code == 2
    assert "give an existing folder as --out, and --format" in result.stderr
    assert len(server.requests) <= 1, "the second video is refused before the server decodes it"
    assert run(*videos, "--out", tmp_path / "out", "--format", "webvtt").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.vtt")} == {"a.vtt", "b.vtt"}


def test_videos_of_one_name_have_files_of_their_own(run, server, tmp_path):
    (tmp_path / "out").mkdir()
    paths = ["a/match.mp4", "b/match.mp4", "b/match.mkv", "windows.mp4", "other.mp4"]
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"%d" % number)
    server.windows_by_content = {b"%d" % number: 2 * number + 2 for number in range(5)}
    sources = [tmp_path / path for path in paths]
    for _ in range(2):  # the second run reads the windows of the first
        assert run(*sources, "--out", tmp_path / "out", "--format", "jsonl", "--segments").exit_code == 0
    ends = {path.stem: lines(path)[-1]["end"] for path in (tmp_path / "out").glob("*.jsonl") if path.stem != "windows"}
    assert ends == {"a_match.mp4": 3, "b_match.mp4": 5, "match.mkv": 7, "windows-2": 9, "other": 11}


@pytest.mark.parametrize(
    ("videos", "names"),
    [
        (["match.mp4", "x/y.tar.mp4"], ["match", "y.tar"]),
        (["match.mp4", "MATCH.mp4"], ["match.mp4-2", "MATCH.mp4"]),
        (["match.mp4", "match.mp4"], ["match.mp4", "match.mp4-2"]),
        (["/a/x.mp4", "/b/a/x.mp4", "a_x.mp4"], ["a_x.mp4", "b_a_x.mp4", "a_x"]),
        (["https://a.org/x.mp4", "s3://b/x.mp4"], ["a.org_x.mp4", "b_x.mp4"]),
        ([".mp4", "/"], [".mp4", "video"]),
        ([f"{'日' * 83}.mp4"], ["日" * 66]),  # 253 bytes, and .elan.csv is longer than .mp4
        ([f"{folder}/{'x' * 250}.mp4" for folder in "ab"], [f"a_{'x' * 198}", f"b_{'x' * 198}"]),
        (["caf\udce9.mp4"], ["caf\udce9"]),
        ([f"{'x' * 240}{number}.mp4" for number in range(2)], ["x" * 200, f"{'x' * 200}-2"]),
        ([], []),
    ],
)
def test_each_video_of_a_folder_has_a_name_that_no_other_has(videos, names):
    assert name_files(videos) == names
    assert len({name.lower() for name in names}) == len(names)


def test_options_of_segments_count(run, video, tmp_path):
    out = tmp_path / "segments.jsonl"
    assert run(video, "--segments", "--min-length", 2.6, "--max-gap", 2, "--out", out).exit_code == 0
    assert [line["label"] for line in lines(out)] == ["running", "jumping"]


def test_json_goes_to_standard_output(run, video):
    shown = [json.loads(line) for line in run(video, "--json").stdout.splitlines()]
    assert [line["window"] for line in shown[:-1]] == list(range(10))
    shown = [json.loads(line) for line in run(video, "--json", "--segments").stdout.splitlines()]
    assert [(line["start"], line["end"], line["label"]) for line in shown] == EXPECTED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "timeline.txt"], "the name must end in"),
        (["--out", "a.csv", "--json"], "leave out --json"),
        (["--out", "a.csv", "--format", "jsonl"], "the name must end in .jsonl; got 'a.csv'"),
        (["--out", "a.ndjson", "--format", "csv"], "the name must end in .csv; got 'a.ndjson'"),
        (["--format", "webvtt"], "the option needs --out, and must be one of"),
        (["--features"], "only JSON lines can have it"),
        (["--out", "nowhere/a.csv"], "there is no folder"),
        (["--png", "a.xyz"], "the name must end in .png, .svg, .pdf"),
        (["--png", "."], "'.' is a folder"),
        (["--html", "."], "'.' is a folder"),
        (["--enter", "2"], "enter must be more than 0"),
        (["--window", "0"], "window must be a number of seconds"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(run, video, words, message):
    result = run(video, *words)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("option", ["--html", "--png", "--out"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(run, server, video, tmp_path, monkeypatch, option):
    access = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    suffix = ".png" if option == "--png" else ".vtt"
    result = run(video, option, tmp_path / f"match{suffix}")
    assert result.exit_code == 2
    assert "cannot be written: choose another place" in result.stderr
    assert server.requests == []
    (tmp_path / "link.png").symlink_to("/dev/null")
    assert run(video, "--png", tmp_path / "link.png").exit_code == 0


@pytest.mark.parametrize(("option", "package"), [("--html", "jinja2"), ("--png", "matplotlib")])
def test_a_missing_package_is_told_before_the_work(run, server, video, tmp_path, monkeypatch, option, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    result = run(video, option, tmp_path / f"report.{option[2:]}")
    assert result.exit_code == 2
    assert "pip install 'clipserve[evaluation]'" in result.stderr.replace("\n", " ")
    assert server.requests == []


def test_a_server_that_is_not_there_ends_the_command(video, tmp_path):
    words = ["timeline", str(video), "--url", "localhost:1", "--timeout", "1"]
    assert CliRunner().invoke(build_app(), words).exit_code == 2
