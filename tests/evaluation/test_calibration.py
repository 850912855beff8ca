"""Calibration by hand, and at its extremes."""

import numpy as np
import pytest

from clipserve.evaluation.calibration import brier_scores, measure_reliability


def test_the_expected_error_of_five_answers_worked_out_by_hand():
    # Two bins. (0, 0.5]: scores 0.3 and 0.5, one right: |0.5 - 0.4| = 0.1, twice.
    # (0.5, 1]: scores 0.6, 0.9 and 0.9, two right: |2/3 - 0.8| = 2/15, three times.
    found = measure_reliability(np.array([0.3, 0.5, 0.6, 0.9, 0.9]), np.array([False, True, True, True, False]), bins=2)
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.4, 0.8])
    assert found.accuracy == pytest.approx([0.5, 2 / 3])
    assert found.expected_error == pytest.approx((2 * 0.1 + 3 * 2 / 15) / 5)
    assert found.largest_error == pytest.approx(2 / 15)


def test_sure_and_right_is_no_error_and_sure_and_wrong_is_all_of_it():
    sure = np.ones(4)
    assert measure_reliability(sure, np.ones(4, dtype=bool)).expected_error == 0.0
    assert measure_reliability(sure, np.zeros(4, dtype=bool)).expected_error == 1.0


def test_there_are_fifteen_bins_and_a_bin_holds_its_upper_edge():
    found = measure_reliability(np.array([0.0, 1 / 15, 1.0]), np.array([True, True, True]))
    assert len(found.counts) == 15
    assert found.counts[0] == 2
    assert found.counts[14] == 1


def test_scores_that_mean_what_they_say_have_a_small_error():
    rng = np.random.default_rng(3)
    confidence = rng.random(50_000)
    assert measure_reliability(confidence, rng.random(50_000) < confidence).expected_error < 0.01
    assert measure_reliability(confidence, rng.random(50_000) < 0.5).expected_error == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("confidence", [np.array([1.2]), np.array([-0.1]), np.array([np.nan]), np.array([])])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        measure_reliability(confidence, np.ones(len(confidence), dtype=bool))


def test_the_brier_score_goes_from_perfect_to_worst():
    scores = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], dtype=np.float32)
    assert brier_scores(scores, [(0,), (0,), (0,), (0, 1)]).tolist() == [0.0, 2.0, 0.5, 0.0]


def test_a_truth_that_is_no_class_leaves_the_brier_score_all_its_distance():
    assert brier_scores(np.array([[1, 0]], dtype=np.float32), [(-1,)]).tolist() == [1.0]
