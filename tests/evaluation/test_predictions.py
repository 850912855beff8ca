"""Scores with six digits keep the order in which the server sent them."""

from unittest.mock import MagicMock

import numpy as np
import pytest

from clipserve import Prediction, Row, ScoredLabel, UnexpectedAnswer
from clipserve.evaluation import Comparison, LabelledVideo
from clipserve.evaluation.predictions import Predictions, read_scores
from tests.evaluation.made_evaluation import make_evaluation


def predict(*scores):
    labels = tuple(ScoredLabel(f"class {index}", index, score) for index, score in scores)
    return Prediction(labels=labels, model="m", video="v")


def test_equal_scores_keep_the_order_of_the_server():
    index, scores = read_scores(predict((3, 0.5), (1, 0.5), (0, 0.0), (2, 0.0), (4, 0.0)))
    assert index == [3, 1, 0, 2, 4]
    assert (np.diff(scores) < 0).all()
    assert scores == pytest.approx([0.5, 0.5, 0, 0, 0], abs=1e-6)


def test_a_sure_model_with_four_hundred_classes_keeps_its_order():
    order = np.random.default_rng(4).permutation(400).tolist()
    index, scores = read_scores(predict(*((place, 1.0 if place == order[0] else 0.0) for place in order)))
    row = np.empty(400, dtype=np.float32)
    row[index] = scores
    assert np.argsort(-row, kind="stable").tolist() == order
    assert row.max() == 1.0


def test_scores_that_fall_are_left_alone():
    assert read_scores(predict((0, 0.75), (1, 0.25)))[1].tolist() == [0.75, 0.25]


def test_evaluations_of_different_videos_are_not_compared():
    with pytest.raises(ValueError, match="same videos"):
        Comparison({"a": make_evaluation(seed=1), "b": make_evaluation(seed=2)})


def test_a_better_model_is_clearly_better():
    comparison = Comparison({"worse": make_evaluation(skill=1.0), "better": make_evaluation(skill=5.0)})
    contrast = comparison.contrasts["better"]
    assert contrast["top_1_accuracy"].interval.low > 0
    assert contrast["brier_score"].value < 0
    assert all(difference.is_clear and difference.is_better for difference in contrast.differences)
    assert contrast.p < 0.001
    assert comparison.baseline == "worse"


def test_a_report_on_many_videos_looks_at_each_of_them_once():
    evaluation = make_evaluation()
    assert evaluation.correct is evaluation.correct  # asked for each video


@pytest.mark.parametrize("labels", [("run", "swim"), ("run",), ("jump", "run")])
def test_a_model_that_is_replaced_during_the_run_ends_it(labels):
    def predict_labels(*names):
        scored = tuple(ScoredLabel(name, index, 0.5) for index, name in enumerate(names))
        return Row("1", "1.mp4", Prediction(scored, "mine", "1.mp4"))

    predictions = Predictions("mine", [LabelledVideo("1", "1.mp4", ("run",))] * 3, allow_unknown=False)
    rows = [predict_labels("run", "jump"), predict_labels("run", "jump"), predict_labels(*labels)]
    with pytest.raises(UnexpectedAnswer, match="the server replaced the model during the run"):
        predictions.collect(MagicMock(**{"__iter__.return_value": iter(rows)}))
