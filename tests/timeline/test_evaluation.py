"""Mean average precision of segments: known answers; the command and its page."""

import gc
import json

import pytest
from typer.testing import CliRunner

from clipserve import Entry, InvalidRequest, Segment, VideoClassifier, Window
from clipserve.command_line import build_app
from clipserve.timeline.detection import average_precision, measure_classes, measure_iou
from clipserve.timeline.evaluation import evaluate_timelines
from clipserve.timeline.truth import TrueSegment, Truth


def true(*spans, label="A"):
    return [TrueSegment(label, *span) for span in spans]


def found(*spans, label="A"):
    """(start, end, score) each."""
    return [Segment(label, 0, start, end, 0, 0, score, 1) for start, end, score in spans]


def precision(truth, detections, threshold=0.5):
    return average_precision({"v": truth}, [("v", one) for one in detections], threshold)


def test_iou_is_what_is_shared_of_what_is_covered():
    (one,) = true((0, 10))
    for span, iou in [((0, 10), 1), ((5, 15), 1 / 3), ((0, 5), 0.5), ((10, 20), 0), ((20, 30), 0), ((-5, 15), 0.5)]:
        (other,) = true(span)
        assert measure_iou(one, other) == measure_iou(other, one) == pytest.approx(iou)


def test_exact_segments_have_the_precision_one():
    assert precision(true((0, 5), (10, 15)), found((0, 5, 0.9), (10, 15, 0.4)), 0.7) == 1


def test_a_segment_is_right_up_to_its_iou():
    detections = found((0, 5, 0.9))  # IoU 0.5 with 0 to 10
    assert [precision(true((0, 10)), detections, threshold) for threshold in (0.3, 0.5, 0.51)] == [1, 1, 0]


def test_half_of_the_true_segments_give_one_half():
    assert precision(true((0, 5), (10, 15)), found((0, 5, 0.9))) == 0.5
    assert precision(true((0, 5), (10, 15)), []) == 0


def test_wrong_segments_count_by_their_score():
    truth = true((0, 5))
    assert precision(truth, found((20, 25, 0.9), (0, 5, 0.8))) == 0.5  # one wrong ahead of it
    assert precision(truth, found((0, 5, 0.9), (20, 25, 0.8))) == 1  # one wrong behind it


def test_a_true_segment_is_taken_once():
    # Right at rank 1 and 3, so 1 x 1/2 + 2/3 x 1/2.
    truth, detections = true((0, 10), (20, 30)), found((0, 10, 0.9), (1, 10, 0.8), (20, 30, 0.7))
    assert precision(truth, detections) == pytest.approx(1 / 2 + 2 / 3 / 2)


def test_the_one_that_is_overlapped_most_is_taken():
    # 0 to 10 and 6 to 20: the first detection lies in both, more in the second.
    truth, detections = true((0, 10), (6, 20)), found((5, 20, 0.9), (0, 10, 0.8))
    assert precision(truth, detections) == 1


def test_precision_is_made_not_to_rise_with_recall():
    # Wrong, right, right of two: precision 0, 1/2, 2/3, so 2/3 over the whole of recall.
    truth, detections = true((0, 5), (10, 15)), found((50, 55, 0.9), (0, 5, 0.8), (10, 15, 0.7))
    assert precision(truth, detections) == pytest.approx(2 / 3)


def test_a_segment_in_another_video_is_wrong():
    truth = {"a": true((0, 5)), "b": []}
    assert average_precision(truth, [("b", *found((0, 5, 0.9)))], 0.5) == 0
    assert average_precision(truth, [("b", *found((0, 5, 0.9))), ("a", *found((0, 5, 0.8)))], 0.5) == 0.5


def test_classes_are_measured_on_their_own_and_labels_match_as_in_evaluate():
    truth = {"v": [*true((0, 5), label="High_Jump"), *true((5, 9), label="B")]}
    detections = {"v": [*found((0, 5, 0.9), label="high jump"), *found((0, 5, 0.9), label="C")]}
    jump, other = measure_classes(truth, detections, ["High_Jump", "B"])
    assert (jump.true, jump.found, jump.mean) == (1, 1, 1)
    assert (other.true, other.found, other.mean) == (1, 0, 0)
    assert list(jump.average_precision) == [0.3, 0.4, 0.5, 0.6, 0.7]


def write(path, text):
    path.write_text(text)
    return path


def test_ground_truth_is_read_with_paths_relative_to_the_file(tmp_path):
    truth = Truth.read(write(tmp_path / "t.csv", "path,start,end,label\na.mp4,1,2.5,x\nb.mp4,,,\na.mp4, 3 ,4,X\n"))
    assert truth.segments == {"a.mp4": (TrueSegment("x", 1, 2.5), TrueSegment("X", 3, 4)), "b.mp4": ()}
    assert [entry.video for entry in truth.videos.values()] == [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    assert truth.labels == ("x",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,x\n", "has no column start, end"),
        ("path,start,end,label\na.mp4,2,1,x\n", "line 2: a segment needs a label, and an end after its start"),
        ("path,start,end,label\na.mp4,1,2,\n", "line 2: a segment needs a label"),
        ("path,start,end,label\n,1,2,x\n", "line 2: the line has no path"),
        ("path,start,end,label\na.mp4,,,\n", "has no segment"),
        ("path,start,end,label\na.mp4,nan,2,x\n", "line 2: a segment needs a label"),
        ('path,start,end,label\n\na.mp4,0,1,"x\nb.mp4,1,2,y\n', "line 3: a quote opens a field here"),
        ("path,start,end,label\na.mp4,0,1,up, down\n", "line 2: the line has 5 values for 4 columns"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(InvalidRequest, match=message):
        Truth.read(write(tmp_path / "t.csv", text))
    with pytest.raises(InvalidRequest, match="cannot read"):
        Truth.read(tmp_path / "nothing.csv")


@pytest.fixture
def truth(tmp_path):
    """The fake server says: resting to 2.5 s, running to 5.5, jumping to 9.5, swimming to 11."""
    (tmp_path / "a <b>.mp4").write_bytes(b"a")
    text = "path,start,end,label\n"
    text += "a <b>.mp4,0,2.5,Resting\na <b>.mp4,2.5,7.5,running\na <b>.mp4,7.5,9.5,jumping\na <b>.mp4,20,21,diving\n"
    return write(tmp_path / "truth.csv", text + "missing.mp4,0,1,resting\n")


def run(server, *words):
    words = ["evaluate-timelines", *map(str, words), "--url", server.url, "--model", "x3d_m"]
    return CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), words)


def test_the_command_measures_what_the_server_answers(server, truth):
    result = run(server, truth, "--json", "-")
    assert result.exit_code == 1, result.output
    assert "missing.mp4" in result.stderr
    report = json.loads(result.stdout)
    # IoU: resting 1, running 3 of 5, jumping 2 of 4; nothing for diving. The video that is missing counts nowhere.
    assert report["mean_average_precision"] == {"0.3": 0.75, "0.4": 0.75, "0.5": 0.75, "0.6": 0.5, "0.7": 0.25}
    assert report["average"] == pytest.approx(0.6)
    assert [(one["label"], one["true"], one["found"]) for one in report["classes"]] == [
        ("Resting", 1, 1), ("diving", 1, 0), ("jumping", 1, 1), ("running", 1, 1),
    ]  # fmt: skip
    assert report["failed"] == 1


def test_the_windows_of_a_video_go_when_it_is_done(server, tmp_path):
    alive = []

    class Videos(dict):
        """Counts the windows in memory whenever a video begins."""

        def values(self):
            for entry in super().values():
                alive.append(sum(isinstance(item, Window) for item in gc.get_objects()))
                yield entry

    server.windows = 100
    entries = {str(number): Entry(str(number), b"%d" % number) for number in range(6)}
    truth = Truth(Videos(entries), dict.fromkeys(entries, (TrueSegment("running", 0, 1),)))
    with VideoClassifier("x3d_m", server.url) as classifier:
        assert len(evaluate_timelines(classifier, truth, parallel=1).videos) == 6
    assert max(alive) <= 300, alive  # of the one that is done, and of those that follow it


def test_the_table_shows_classes_and_the_mean(server, truth):
    shown = run(server, truth).stdout
    assert [line.split()[1] for line in shown.splitlines() if "jumping" in line] == ["jumping"]
    (mean,) = [line for line in shown.splitlines() if "mean" in line and "class" not in line]
    assert [word for word in mean.split() if word[0].isdigit()] == ["75.0", "75.0", "75.0", "50.0", "25.0", "60.0"]


@pytest.mark.needs("browser")
def test_the_page_shows_both_timelines_one_above_the_other(server, truth, open_page, tmp_path):
    run(server, truth, "--html", tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    assert page.inner_text("h3") == "a <b>.mp4"
    assert page.inner_text(".tile >> nth=0").startswith("60.0 %")
    above = page.locator(".part.truth[title^='running']").bounding_box()
    wide = page.locator(".strip .track >> nth=0").bounding_box()["width"]
    below = page.locator(".part[title^='running, 2.5 to 5.5']").bounding_box()
    assert above["width"] == pytest.approx(wide * 5 / 21, abs=3)
    assert wide > 700
    assert above["x"] == pytest.approx(below["x"], abs=1)
    assert above["width"] / below["width"] == pytest.approx(5 / 3, abs=0.05)
    assert 0 < below["y"] - above["y"] < 60


def test_a_path_may_be_an_address(tmp_path):
    videos = ["s3://bucket/a.mp4", "https://example.org/b.mp4", "c.mp4"]
    (tmp_path / "truth.csv").write_text("path,start,end,label\n" + "".join(f"{video},0,1,A\n" for video in videos))
    truth = Truth.read(tmp_path / "truth.csv")
    assert [entry.video for entry in truth.videos.values()] == [*videos[:2], str(tmp_path / "c.mp4")]


def test_credentials_of_an_address_stay_out_of_the_reports(tmp_path):
    address = "https://me:secret@example.org/a.mp4?X-Amz-Signature=abc"
    truth = Truth.read(write(tmp_path / "t.csv", f"path,start,end,label\n{address},0,1,A\n{address},1,2,B\n"))
    assert [entry.video for entry in truth.videos.values()] == [address]
    assert list(truth.segments) == list(truth.videos) == ["https://example.org/a.mp4?X-Amz-Signature=..."]
    assert len(*truth.segments.values()) == 2
