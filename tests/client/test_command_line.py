"""`clipserve classify`, as typed."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import grpc
import pytest
from typer.testing import CliRunner

from clipserve.command_line import build_app
from tests.interrupts import interruptible
from tests.watching import HANG_SECONDS, wait_for, when

PROGRAM = "from clipserve.command_line import main; main()"
NOT_A_VIDEO = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no container that is opened here")


@pytest.fixture
def files(tmp_path):
    """Two video files, the second of which the server refuses when told to."""
    paths = [tmp_path / "archery.mp4", tmp_path / "bro[b]ken.mp4"]
    for path in paths:
        path.write_bytes(path.name.encode())
    return [str(path) for path in paths]


@pytest.fixture
def run(triton):
    """Run `clipserve classify` against `triton`."""

    def run_command(*arguments, url=None):
        return CliRunner(env={"COLUMNS": "200"}).invoke(
            build_app(), ["classify", *arguments, "--url", url or triton.url]
        )

    return run_command


def refuse_second(triton):
    triton.failures_by_content[b"bro[b]ken.mp4"] = NOT_A_VIDEO


def read_lines(output):
    return [json.loads(line) for line in output.splitlines()]


def test_a_table_shows_each_file_with_its_labels(run, files):
    result = run(*files, "--top-k", "2")
    assert result.exit_code == 0
    for shown in (*files, "archery 0.93, deadlifting 0.04", "x3d_m"):
        assert shown in result.stdout
    assert "sharpening" not in result.stdout
    assert result.stdout.endswith("\n")
    assert not result.stderr


def test_json_is_one_object_per_line_and_nothing_else(run, files):
    result = run(*files, "--json", "--top-k", "1")
    assert result.exit_code == 0
    lines = read_lines(result.stdout)
    assert [line["file"] for line in lines] == files
    for line in lines:
        assert line.pop("milliseconds") > 0
        assert line == {
            "file": line["file"],
            "id": line["file"],
            "video": line["file"],
            "model": "x3d_m",
            "labels": [{"label": "archery", "index": 5, "score": 0.93}],
            "truncated": False,
        }


def test_a_damaged_file_is_marked_beside_its_labels(run, files, triton):
    triton.truncated = {b"archery.mp4"}
    shown = run(*files, "--top-k", "1")
    assert "archery 0.93 (truncated)" in shown.stdout
    assert shown.stdout.count("truncated") == 1
    assert "bytes of the video are missing or damaged" in shown.stderr
    assert [line["truncated"] for line in read_lines(run(*files, "--json").stdout)] == [True, False]


def test_json_carries_features_and_report_when_requested(run, files):
    (line,) = read_lines(run(files[0], "--json", "--features", "--report").stdout)
    assert line["features"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert line["report"]["codec"] == "h264"


def test_a_table_has_no_room_for_features(run, files, triton):
    result = run(files[0], "--features")
    assert result.exit_code == 2
    assert "--json" in result.stderr
    assert not triton.metadata


def test_a_failed_file_does_not_stop_the_others_and_is_reported_on_stderr(run, files, triton):
    refuse_second(triton)
    result = run(files[1], "missing.mp4", files[0])
    assert result.exit_code == 1
    for shown in ("archery 0.93", files[1], "not-a-video", "missing.mp4", "video-not-readable"):
        assert shown in result.stdout
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {files[1]!r}: no container")
    assert "'missing.mp4': No such file" in second


def test_a_failed_file_is_a_json_object_too(run, files, triton):
    refuse_second(triton)
    result = run(*reversed(files), "--json")
    assert result.exit_code == 1
    failed, fine = read_lines(result.stdout)
    assert failed["file"] == files[1]
    assert failed["error"].keys() == {"class", "code", "message", "retryable"}
    assert failed["error"]["code"] == "not-a-video"
    assert failed["error"]["retryable"] is False
    assert fine["labels"]
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_server_that_is_down_is_reported_once(run, files, free_port, options):
    result = run(*files, *options, url=f"localhost:{free_port}")
    assert result.exit_code == 2
    (message,) = result.stderr.splitlines()
    assert f"localhost:{free_port}" in message
    if options:
        (line,) = read_lines(result.stdout)
        assert (line["file"], line["error"]["code"]) == (None, "unavailable")
    else:
        assert not result.stdout


def test_an_unknown_model_is_reported_once_with_those_there_are(run, files):
    result = run(*files, "--model", "x3d_q")
    assert result.exit_code == 2
    (message,) = result.stderr.splitlines()
    assert "mvit_base_16x4, x3d_m" in message


def test_headers_are_sent(run, files, triton):
    run(files[0], "--header", "Authorization: Bearer a:b", "--header", "x-team:video")
    ((_, metadata),) = triton.metadata
    assert metadata["authorization"] == "Bearer a:b"
    assert metadata["x-team"] == "video"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.mp4", "--top-k", "0"],
        ["a.mp4", "--timeout", "-1"],
        ["a.mp4", "--header", "no colon"],
        ["a.mp4", "--root-certificates", "missing.pem"],
    ],
)
def test_wrong_usage_exits_with_2_and_sends_nothing(run, triton, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert not triton.metadata


@pytest.mark.parametrize("command", ["classify", "embed", "evaluate", "demo", "export", "versions", "serve"])
def test_help_shows_what_a_value_may_be_and_not_pythons_types(command):
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), [command, "--help"]).stdout
    assert not re.findall(r"<.*>|\blist\b *\[|\bbool\b", shown)
    assert re.search(r"--help +Show this message", shown), "a flag has no value, hence no kind of value"


def test_help_shows_examples_and_every_command():
    runner = CliRunner(env={"COLUMNS": "100"})
    shown = runner.invoke(build_app(), ["--help"]).stdout
    for command in ("classify", "embed", "evaluate", "demo", "export", "serve"):
        assert f" {command} " in shown
    assert "clipserve classify *.mp4 --json | jq" in (runner.invoke(build_app(), ["classify", "--help"]).stdout)


def test_the_address_may_come_from_the_environment(files, triton):
    runner = CliRunner(env={"CLIPSERVE_URL": triton.url})
    assert runner.invoke(build_app(), ["classify", files[0]]).exit_code == 0
    assert triton.videos == [b"archery.mp4"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_ctrl_c_leaves_with_130_and_no_traceback(files, triton, options):
    triton.hold = True
    process = subprocess.Popen(
        interruptible([sys.executable, "-c", PROGRAM, "classify", *files, *options, "--url", triton.url]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_for(lambda: triton.requests)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert not stdout
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_file(files, triton, tmp_path, number):
    (tmp_path / "list.csv").write_text("path\n" + f"{files[0]}\n" * 20_000)
    before = {path.name for path in tmp_path.iterdir()}
    arguments = ["embed", str(tmp_path / "list.csv"), "--out", str(tmp_path / "x.npy"), "--url", triton.url]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(lambda: any(path.suffix == ".part" for path in tmp_path.iterdir()))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in stderr) == (128 + number, False)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_program_of_nohup_goes_on_after_sighup(files, triton):
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {PROGRAM}"
    arguments = ["classify", *files[:1] * 200, "--url", triton.url]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: triton.requests)
        process.send_signal(signal.SIGHUP)
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()


def test_a_folder_and_a_list_are_sources_too(run, files, tmp_path):
    (tmp_path / "labels.csv").write_text("id,path,label\n7,archery.mp4,archery\n")
    lines = read_lines(run(str(tmp_path), str(tmp_path / "labels.csv"), "--json").stdout)
    assert [line["file"] for line in lines] == [*files, files[0]]
    assert (lines[2]["id"], lines[2]["label"]) == ("7", "archery")


def test_a_wrong_column_is_reported_with_the_columns_there_are(run, tmp_path, triton):
    (tmp_path / "labels.csv").write_text("id,file\n7,archery.mp4\n")
    result = run(str(tmp_path / "labels.csv"))
    assert result.exit_code == 2
    assert "no column 'path'; it has 'id', 'file'" in result.stderr
    assert not triton.metadata


def test_sampling_options_are_sent(run, files, triton):
    options = ["--sampling", "clip", "--views", "2", "--crops", "3", "--start", "0.5", "--end", "2"]
    assert run(files[0], *options, "--quality", "reference").exit_code == 0
    (request,) = triton.requests
    sent = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()}
    assert 0 < sent.pop("timeout") <= 60_000_000
    assert sent == {
        "policy": "clip",
        "views": 2,
        "crops": 3,
        "start_seconds": 0.5,
        "end_seconds": 2.0,
        "quality": "reference",
    }


def test_shortcuts_are_sent(run, files, triton):
    assert run(files[0], "--sampling", "keyframes", "--quality", "draft").exit_code == 0
    (request,) = triton.requests
    sent = {name: value.string_param for name, value in request.parameters.items() if name != "timeout"}
    assert sent == {"policy": "keyframes", "quality": "draft"}


def test_sampling_that_makes_no_sense_is_refused(run, files, triton):
    result = run(files[0], "--views", "2")
    assert (result.exit_code, triton.metadata) == (2, [])
    assert "add sampling='clip'" in result.stderr


def test_parallel_is_the_number_of_videos_sent_at_once(run, files, triton):
    triton.hold, triton.delay = True, 0.02
    when(lambda: triton.in_flight >= 3, triton.release.set)
    assert run(*files * 4, "--parallel", "3").exit_code == 0
    assert triton.most_in_flight == 3


def test_a_failed_file_may_be_left_out_or_end_the_run(run, files, triton):
    refuse_second(triton)
    result = run(*reversed(files), "--json", "--on-error", "drop")
    assert result.exit_code == 1
    assert [line["file"] for line in read_lines(result.stdout)] == files[:1]
    assert "no container" in result.stderr
    result = run(*reversed(files), "--json", "--on-error", "raise")
    assert result.exit_code == 1
    assert [line["error"]["code"] for line in read_lines(result.stdout)] == ["not-a-video"]


def test_a_shard_of_the_files_can_be_classified(run, files):
    lines = read_lines(run(*files, "--json", "--shard", "2/2").stdout)
    assert [line["file"] for line in lines] == files[1:]


def run_program(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, timeout=60, **options
    )


def say_once(result, said):
    """The program ends with one sentence and a status that is not 0."""
    assert result.returncode == 2, result.stderr
    assert result.stderr == f"error: cannot write to standard output: {said}\n"


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_full_disk_behind_standard_output_is_reported_in_a_sentence(files, triton, arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        say_once(
            run_program("classify", *files, *arguments, "--url", triton.url, stdout=full), "No space left on device"
        )


@pytest.mark.parametrize("arguments", [["--help"], ["classify", "--help"], ["--version"]])
def test_a_full_disk_is_reported_for_a_help_page_too(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        say_once(run_program(*arguments, stdout=full), "No space left on device")


def test_a_reader_that_left_is_reported_in_a_sentence(files, triton):
    reading, writing = os.pipe()
    os.close(reading)
    say_once(run_program("classify", *files, "--json", "--url", triton.url, stdout=writing), "Broken pipe")
    os.close(writing)


def test_a_program_without_standard_output_says_so(files, triton):
    command = f"exec {sys.executable} -c '{PROGRAM}' classify {files[0]} --json --url {triton.url} >&-"
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    say_once(result, "Broken pipe")


def run_on_full_disk(*arguments):
    """Files of the program grow no larger than half a kilobyte or one, which fails as on a disk that is full."""
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)


def test_a_full_disk_ends_a_job_which_can_be_continued(triton, tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.mp4").write_bytes(b"video")
    out = tmp_path / "results.jsonl"
    arguments = ["classify", str(tmp_path), "--out", str(out), "--url", triton.url]
    result = run_on_full_disk(*arguments)
    first, second = result.stderr.splitlines()
    assert (result.returncode, first) == (2, "error: cannot write: File too large")
    assert second.endswith("rows; the same command continues from here")
    assert 0 < out.read_bytes().count(b"\n") < 20
    result = run_program(*arguments)
    assert (result.returncode, "20 rows" in result.stderr) == (0, True)
    assert [line["row"] for line in read_lines(out.read_text())] == list(range(20))


def test_a_full_disk_leaves_no_half_file_of_vectors(triton, tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(40):
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(b"video")
    out = tmp_path / "x.npy"
    arguments = ["embed", str(tmp_path / "videos"), "--out", str(out), "--url", triton.url]
    result = run_on_full_disk(*arguments)
    assert (result.returncode, result.stderr) == (2, f"error: cannot write {str(out)!r}: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


@pytest.mark.parametrize("options", [[], ["--json"], ["--out", "results.jsonl"], ["--shard", "2/2"]])
def test_a_list_without_a_video_says_so(run, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "more.jsonl").touch()
    result = run("labels.csv", "more.jsonl", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == (
        "error: no video was found in 'labels.csv' and 'more.jsonl': give video files, or a folder, a pattern or a list"
        " that has some"
    )


def test_an_empty_shard_is_not_an_empty_list(run, files):
    result = run(files[0], "--json", "--shard", "2/2")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_other_files_of_a_folder_are_reported(run, files, tmp_path):
    (tmp_path / "\x1b[31m.txt").touch()
    (tmp_path / "around").symlink_to(tmp_path)
    result = run(str(tmp_path), "--json")
    assert result.stderr == "left out: 1 no video by name (1 .txt), 1 link in a circle\n"


def test_a_video_may_come_from_standard_input(files, triton):
    # Bytes that are no text in any encoding, and a pipe, which has no end to seek.
    video = bytes(range(256)) * 1000
    program = [sys.executable, "-c", PROGRAM, "classify", "-", files[0], "--json", "--url", triton.url]
    result = subprocess.run(program, input=video, capture_output=True, timeout=60)
    assert [line["file"] for line in read_lines(result.stdout.decode())] == ["<stdin>", files[0]], result.stderr
    assert sorted(triton.videos, key=len) == [b"archery.mp4", video]
    with open(files[0], "rb") as file:  # noqa: PTH123
        result = run_program("classify", "-", "--json", "--url", triton.url, stdin=file, stdout=subprocess.PIPE)
    assert (result.returncode, triton.videos[2]) == (0, b"archery.mp4")


def test_an_empty_standard_input_is_an_error_of_its_row(triton):
    result = run_program(
        "classify", "-", "--json", "--url", triton.url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    (line,) = read_lines(result.stdout)
    assert (result.returncode, line["file"], line["error"]["code"]) == (1, "<stdin>", "empty")


@pytest.mark.parametrize(
    ("arguments", "said"), [(["-", "-"], "give - only once"), (["-", "--out", "results.jsonl"], "leave out --out")]
)
def test_standard_input_is_read_once(run, triton, arguments, said):
    result = run(*arguments)
    assert (result.exit_code, triton.metadata) == (2, [])
    assert said in " ".join(result.stderr.split())


def test_standard_input_is_not_waited_for_on_a_terminal(triton):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200"}
    result = run_program("classify", "-", "--url", triton.url, stdin=theirs, env=environment)
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 2
    assert "which is a terminal" in " ".join(result.stderr.split())


def test_names_reach_a_terminal_of_another_encoding_and_hold_no_commands(triton, tmp_path):
    for name in (b"caf\xe9.mp4", "日\x1b[2J.mp4".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"video")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "300"}
    arguments = ["classify", str(tmp_path), "--url", triton.url]
    for options in ([], ["--json"]):
        result = run_program(*arguments, *options, stdout=subprocess.PIPE, env=environment)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.isascii()
        assert "\x1b" not in result.stdout
    assert [line["file"][len(f"{tmp_path}/") :] for line in read_lines(result.stdout)] == [
        r"caf\xe9.mp4",
        "日\x1b[2J.mp4",
    ]
