"""`clipserve evaluate`, end to end."""

import json
import time

import pytest
from typer.testing import CliRunner

from clipserve.command_line import build_app


@pytest.fixture
def run(motion_url):
    def run(*arguments, url=motion_url):
        runner = CliRunner(env={"COLUMNS": "100"})
        return runner.invoke(build_app(), ["evaluate", *map(str, arguments), "--url", url])

    return run


def test_a_list_becomes_a_table_a_json_file_and_a_page(run, write_list, tmp_path):
    result = run(
        write_list(), "--model", "motion", "--json", tmp_path / "report.json", "--html", tmp_path / "report.html"
    )
    assert result.exit_code == 0, result.output
    assert "top-1 accuracy" in result.stdout
    assert "24 of 24 videos answered" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["metrics"]["mean_hit_ratio_5"]["value"] == 1.0
    assert report["metrics"]["top_1_accuracy"]["low"] < report["metrics"]["top_1_accuracy"]["value"]
    assert (report["videos"], report["answered"], len(report["answers"])) == (24, 24, 24)
    assert len(report["classes"]) == 12
    assert sum(bin_["answers"] for bin_ in report["reliability"]) == 24
    assert report["settings"]["sampling"] == "uniform"
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2


def test_folders_and_lists_may_be_mixed(run, write_list, motion_folder, tmp_path):
    (tmp_path / "videos" / "still").mkdir(parents=True)
    (tmp_path / "videos" / "still" / "1.mp4").symlink_to(motion_folder / "still-1.mp4")
    result = run(write_list([("still-0.mp4", "still")]), tmp_path / "videos", "--model", "motion", "--json", "-")
    assert json.loads(result.stdout)["answered"] == 2


def test_json_may_go_to_a_pipe_alone(run, write_list):
    result = run(write_list([("still-0.mp4", "still")]), "--model", "motion", "--json", "-")
    assert json.loads(result.stdout)["metrics"]["top_1_accuracy"]["value"] == 1.0


def test_a_report_that_cannot_be_written_costs_no_other_one(run, write_list, tmp_path):
    page = tmp_path / "report.html"
    result = run(write_list([("still-0.mp4", "still")]), "--model", "motion", "--json", "/dev/full", "--html", page)
    assert result.exit_code == 2
    assert "cannot write the report: [Errno 28]" in result.stderr
    assert page.read_text().startswith("<!doctype html>")


def test_a_broken_file_is_reported_and_exits_with_1(run, write_list):
    result = run(write_list([("still-0.mp4", "still"), ("broken.mp4", "still")]), "--model", "motion")
    assert result.exit_code == 1
    assert "1 of 2 videos answered" in result.stdout
    said = "".join(result.stdout.split())  # the lines wrap
    assert "broken.mp4:not-a-video:" in said
    assert "thebytesareinnoformatknownhere" in said


def test_shortcuts_reach_the_report(run, write_list):
    result = run(write_list(), "--model", "motion", "--sampling", "keyframes", "--quality", "draft", "--json", "-")
    settings = json.loads(result.stdout)["settings"]
    assert (settings["sampling"], settings["quality"]) == ("keyframes", "draft")


def test_sampling_reaches_the_report(run, write_list):
    options = ("--sampling", "clip", "--views", "2", "--parallel", "2", "--json", "-")
    settings = json.loads(run(write_list(), "--model", "motion", *options).stdout)["settings"]
    assert (settings["sampling"], settings["views"], settings["parallel"]) == ("clip", 2, 2)


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([("still-0.mp4", "")], (), "has a true label"),
        ([("still-0.mp4", "stil")], (), "did you mean 'still'"),
        ([("still-0.mp4", "still")], ("--model", "no_such_model"), "no_such_model"),
        ([("still-0.mp4", "still")], ("--json", "/no/such/folder/report.json"), "/no/such/folder"),
        ([("still-0.mp4", "still")], ("--views", "3"), "sampling"),
    ],
)
def test_what_cannot_be_measured_exits_with_2_and_a_sentence(run, write_list, rows, arguments, message):
    result = run(write_list(rows), "--model", "motion", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_no_server_exits_with_2(run, write_list):
    result = run(write_list(), "--model", "motion", url="localhost:1")
    assert result.exit_code == 2
    assert "localhost:1" in result.stderr


def test_with_retry_seconds_a_server_that_is_away_is_waited_for(run, write_list):
    started = time.monotonic()
    options = ("--retry-seconds", "1.5", "--timeout", "1")
    result = run(write_list([("still-0.mp4", "still")]), "--model", "motion", *options, url="localhost:1")
    assert result.exit_code == 2
    assert time.monotonic() - started > 1


def test_an_unknown_label_may_count_as_missed(run, write_list):
    result = run(write_list([("still-0.mp4", "juggling")]), "--model", "motion", "--unknown-labels", "miss")
    assert result.exit_code == 0
    assert "1 true label is no class of the model" in " ".join(result.stdout.split())
    assert "nan" not in result.stdout


def test_help_shows_examples():
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(build_app(), ["evaluate", "--help"]).stdout
    assert "clipserve evaluate labels.csv --model x3d_s --model x3d_m --html report.html" in shown
