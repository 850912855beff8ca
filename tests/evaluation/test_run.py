"""Evaluations of `motion`, a model that is right, on a real Triton."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest

from clipserve import ClipserveError, Entry, InvalidRequest, ServerUnavailable, UnknownModel, VideoClassifier
from clipserve.evaluation import compare, evaluate
from clipserve.evaluation.metric_values import Interval
from clipserve.evaluation.run import hide_credentials
from clipserve_export.motion.scenes import LABELS


@pytest.fixture(scope="module")
def whole(motion_url, motion_folder):
    """The evaluation of all 24 videos."""
    frame = pd.DataFrame(
        [(str(path), path.name.rpartition("-")[0]) for path in sorted(motion_folder.glob("*-*.mp4"))],
        columns=["path", "label"],
    )
    return evaluate(frame, model="motion", url=motion_url)


def test_a_model_that_is_right_is_found_right(whole):
    assert whole.classes == tuple(LABELS)
    assert whole.answered == 24
    assert whole["top_1_accuracy"] >= 23 / 24
    assert whole["mean_hit_ratio_5"] == 1.0
    assert whole["mean_average_precision"] > 0.95
    assert not whole.failed
    assert whole.videos_per_second > 0
    assert (whole.milliseconds > 0).all()


def test_all_scores_of_every_class_are_there(whole, motion_url):
    assert whole.scores.shape == (24, 12)
    assert whole.scores.dtype == np.float32
    assert whole.scores.sum(axis=1) == pytest.approx(1, abs=1e-4)
    with VideoClassifier("motion", motion_url) as classifier:
        prediction = classifier.classify(whole.videos[7].video, top_k=12)
    assert [scored.index for scored in prediction] == np.argsort(-whole.scores[7], kind="stable").tolist()


def test_the_metrics_are_those_of_the_predictions(whole):
    truths = np.array([true for (true,) in whole.truths])
    assert whole["top_1_accuracy"] == np.mean(whole.scores.argmax(axis=1) == truths)
    assert whole.metrics["top_1_accuracy"].interval.low < whole["top_1_accuracy"]
    assert sum(result.videos for result in whole.class_results) == 24
    assert whole.confusion.counts.sum() == 24


def test_broken_and_missing_files_are_listed_and_count_in_no_metric(write_list, motion_url):
    labels = write_list([("still-0.mp4", "still"), ("broken.mp4", "still"), ("gone.mp4", "growing")])
    evaluation = evaluate(labels, model="motion", url=motion_url)
    assert [(failure.position, failure.id, failure.code) for failure in evaluation.failures] == [
        (1, "1", "not-a-video"),
        (2, "2", "video-not-readable"),
    ]
    assert evaluation.failures_by_code == {"not-a-video": 1, "video-not-readable": 1}
    assert evaluation.answered == 1
    assert evaluation["top_1_accuracy"] == 1.0
    assert "1 of 3 videos answered" in repr(evaluation)


def test_when_nothing_is_answered_there_are_no_metrics_and_still_a_report(write_list, motion_url):
    evaluation = evaluate(write_list([("broken.mp4", "still")]), model="motion", url=motion_url)
    assert evaluation.metrics == {}
    assert "none of 1 videos answered" in repr(evaluation)
    assert "None of 1 videos was answered" in evaluation.to_html()
    assert '"answered": 0' in evaluation.to_json()
    evaluation.show()


def test_mistakes_are_found(write_list, motion_url):
    # One video under a false label: the model is right about the other three.
    rows = [
        ("still-0.mp4", "growing"),
        ("growing-0.mp4", "growing"),
        ("still-1.mp4", "still"),
        ("blinking-0.mp4", "blinking"),
    ]
    evaluation = evaluate(write_list(rows), model="motion", url=motion_url)
    assert evaluation["top_1_accuracy"] == 0.75
    assert [
        (evaluation.classes[truth], evaluation.classes[answer], count)
        for truth, answer, count in evaluation.confusion.pairs()
    ] == [("growing", "still", 1)]
    accuracy = {result.label: result.accuracy for result in evaluation.class_results}
    assert accuracy == {"growing": 0.5, "still": 1.0, "blinking": 1.0}
    assert evaluation["mean_class_accuracy"] == pytest.approx(2.5 / 3)


def test_one_video_may_have_several_true_labels(write_list, motion_url):
    evaluation = evaluate(write_list([("still-0.mp4", "Still|moving_left")]), model="motion", url=motion_url)
    assert evaluation["mean_hit_ratio_1"] == 0.5
    assert evaluation["top_1_accuracy"] == 1.0


def test_an_unknown_label_ends_the_evaluation_and_names_near_ones(write_list, motion_url):
    labels = write_list([("still-0.mp4", "still"), ("growing-0.mp4", "groving")])
    with pytest.raises(InvalidRequest, match=r"'groving' \(did you mean 'growing'.*unknown_labels='miss'"):
        evaluate(labels, model="motion", url=motion_url)


def test_an_unknown_label_may_count_as_missed(write_list, motion_url):
    labels = write_list([("still-0.mp4", "still"), ("growing-0.mp4", "juggling")])
    evaluation = evaluate(labels, model="motion", url=motion_url, unknown_labels="miss")
    assert evaluation["top_5_accuracy"] == 0.5
    assert evaluation.unknown_labels == ("juggling",)
    assert evaluation.confusion.counts.sum() == 1
    assert "juggling" in evaluation.to_html()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("still-0.mp4", ""), ("growing-0.mp4", "")], "id,path,label", "none of 2 videos has a true label"),
        ([("still-0.mp4", "still")], "id,path,class", "columns path and label"),
        ([("still-0.mp4", "still"), ("growing-0.mp4", "")], "id,path,label", "1 of 2 videos have no true label: '1'"),
        ([], "id,path,label", "nothing to evaluate"),
    ],
)
def test_a_source_without_labels_is_refused_before_anything_is_sent(write_list, rows, header, message):
    with pytest.raises(InvalidRequest, match=message):
        evaluate(write_list(rows, header=header), url="localhost:1")


def test_a_folder_of_videos_has_no_labels(motion_folder):
    with pytest.raises(InvalidRequest, match="lies in no class: put each video into a folder"):
        evaluate(motion_folder, url="localhost:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unknown_labels": "ignore"}, "'raise' or 'miss'"),
        ({"top_k": 5}, "unknown option: top_k"),
        ({"views": 0}, "views"),
        ({"colour": "red"}, "unknown option: colour"),
    ],
)
def test_a_wrong_argument_is_refused(write_list, arguments, message):
    with pytest.raises(InvalidRequest, match=message):
        evaluate(write_list(), url="localhost:1", **arguments)


def test_help_and_editors_know_every_argument():
    parameters = inspect.signature(evaluate).parameters
    assert parameters["views"].annotation == int | None
    assert {"source", "model", "crops", "timeout_seconds", "unknown_labels"} <= parameters.keys()
    assert "    unknown_labels: what happens if" in evaluate.__doc__


def test_no_server_and_no_such_model_end_the_evaluation(write_list, motion_url):
    with pytest.raises(ServerUnavailable):
        evaluate(write_list(), model="motion", url="localhost:1")
    with pytest.raises(UnknownModel, match="motion"):
        evaluate(write_list(), model="no_such_model", url=motion_url)


def test_entries_with_labels_are_a_source(motion_folder, motion_url):
    entries = [Entry("a", (motion_folder / "still-0.mp4").read_bytes(), "still")]
    evaluation = evaluate(entries, model="motion", url=motion_url)
    assert (evaluation.videos[0].id, evaluation["top_1_accuracy"]) == ("a", 1.0)


def test_folders_of_classes_are_a_source(motion_folder, motion_url, tmp_path):
    for label in ("still", "growing"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.mp4").symlink_to(motion_folder / f"{label}-0.mp4")
    evaluation = evaluate(tmp_path, model="motion", url=motion_url)
    assert [video.labels for video in evaluation.videos] == [("growing",), ("still",)]
    assert evaluation["top_1_accuracy"] == 1.0


def test_a_model_compared_with_itself_differs_by_nothing(write_list, motion_url):
    comparison = compare(write_list(), {"one": {}, "other": {"parallel": 2}}, model="motion", url=motion_url)
    contrast = comparison.contrasts["other"]
    assert contrast.videos == 24
    assert (contrast.won, contrast.lost, contrast.p) == (0, 0, 1.0)
    assert (contrast["top_1_accuracy"].value, contrast["top_1_accuracy"].verdict) == (0.0, "may be chance")
    assert contrast["brier_score"].interval == Interval(0.0, 0.0)
    assert comparison["other"].settings["parallel"] == 2


def test_settings_reach_the_server(write_list, motion_url):
    # The first 0.05 seconds show one frame, and one frame shows no motion.
    comparison = compare(write_list(), {"whole": {}, "a moment": {"end": 0.05}}, model="motion", url=motion_url)
    difference = comparison.contrasts["a moment"]["top_1_accuracy"]
    assert difference.value < -0.5
    assert difference.is_clear
    assert not difference.is_better
    assert comparison.contrasts["a moment"].p < 0.01
    assert comparison["a moment"].settings["end"] == 0.05


def test_a_comparison_pairs_the_videos_that_both_answered(write_list, motion_url):
    labels = write_list([("still-0.mp4", "still"), ("broken.mp4", "still"), ("growing-0.mp4", "growing")])
    comparison = compare(labels, {"a": {}, "b": {}}, model="motion", url=motion_url)
    assert comparison.contrasts["b"].videos == 2
    assert comparison.failed


def test_a_model_that_is_not_there_is_found_before_the_first_is_asked(write_list, motion_url):
    with pytest.raises(UnknownModel, match="no_such_model"):
        compare(write_list([("still-0.mp4", "no such label")]), ["motion", "no_such_model"], url=motion_url)


def test_settings_that_are_numbers_of_numpy_reach_the_report(write_list, motion_url):
    options = {"sampling": "clip", "views": np.int64(2), "end": np.float32(0.5), "parallel": np.int32(1)}
    evaluation = evaluate(write_list([("still-0.mp4", "still")]), model="motion", url=motion_url, **options)
    settings = json.loads(evaluation.to_json())["settings"]
    assert {name: settings[name] for name in options} == options


@pytest.mark.parametrize(
    "settings", [["motion"], ["motion", "motion"], {"a": {}, "b": {"views": -1}}, {"a": {}, "b": {"parallel": 0}}]
)
def test_wrong_settings_are_refused_before_anything_is_sent(write_list, settings):
    with pytest.raises(ClipserveError, match=r"two settings|views|parallel"):
        compare(write_list(), settings, url="localhost:1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("localhost:8001", "localhost:8001"),
        ("user:secret@video.example.org:443", "video.example.org:443"),
        ("https://user:secret@video.example.org/x?token=secret", "https://video.example.org/x"),
    ],
)
def test_a_report_shows_no_credentials(url, shown):
    assert hide_credentials(url) == shown
