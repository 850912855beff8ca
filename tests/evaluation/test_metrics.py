"""Metrics are what their definitions say, and what scikit-learn computes where it has them."""

import numpy as np
import pytest
from sklearn import metrics as reference

from clipserve.evaluation import metrics

RANKED = [1, 6, 2, 7, 8, 3, 9, 10, 4, 5]


def test_the_codelabs_known_answers():
    assert metrics.average_precision(RANKED, [1, 2, 3, 4, 5]) == pytest.approx(0.622222, abs=1e-6)
    assert metrics.hit_ratio(RANKED, [1, 2, 3, 4, 5]) == 1.0


@pytest.mark.parametrize(("k", "ratio"), [(1, 0.2), (3, 0.4), (5, 0.4), (6, 0.6), (10, 1.0)])
def test_the_hit_ratio_is_the_share_of_truths_among_the_first_k(k, ratio):
    assert metrics.hit_ratio(RANKED[:k], [1, 2, 3, 4, 5]) == pytest.approx(ratio)


def test_a_hit_asks_for_one_truth_only():
    assert metrics.is_hit(RANKED[:1], [1, 2, 3, 4, 5]) == 1.0
    assert [metrics.is_hit(RANKED[:2], [truth]) for truth in (5, 6)] == [0.0, 1.0]


def test_labels_may_be_words():
    assert metrics.hit_ratio(["archery"], ["bowling"]) == 0.0
    assert metrics.hit_ratio(["archery", "bowling"], ["bowling"]) == 1.0
    assert metrics.average_precision(["archery", "bowling"], ["bowling"]) == 0.5


def test_perfect_and_worst_lists():
    assert metrics.average_precision([1, 2, 3], [3, 1, 2]) == 1.0
    assert metrics.average_precision([4, 5, 6], [1, 2]) == 0.0
    assert metrics.hit_ratio([4, 5, 6], [1, 2]) == 0.0


def test_a_truth_that_is_not_in_the_list_counts_as_missed():
    assert metrics.average_precision([1], [1, 2]) == 0.5


def test_a_label_that_is_listed_twice_is_right_once():
    assert metrics.average_precision([1, 1, 2], [1, 2]) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.hit_ratio([1, 1], [1, 1, 2, 2]) == 0.5


def test_an_empty_list_of_truths_is_refused():
    with pytest.raises(ValueError, match="list of truths is empty"):
        metrics.hit_ratio([1], [])


@pytest.fixture
def random_answers():
    rng = np.random.default_rng(7)
    scores = rng.dirichlet(np.ones(9), size=300).astype(np.float32)
    truths = rng.integers(0, 9, 300)
    return scores, truths


def test_the_mean_of_hits_is_scikit_learns_top_k_accuracy(random_answers):
    scores, truths = random_answers
    ranked = np.argsort(-scores, axis=1).tolist()
    for k in (1, 3, 5):
        hits = [metrics.is_hit(row[:k], [true]) for row, true in zip(ranked, truths.tolist(), strict=True)]
        assert np.mean(hits) == pytest.approx(reference.top_k_accuracy_score(truths, scores, k=k))


def test_the_ranking_precision_is_scikit_learns(random_answers):
    scores, _ = random_answers
    rng = np.random.default_rng(8)
    targets = rng.random(scores.shape) < 0.3
    targets[:, 0] |= ~targets.any(axis=1)
    ranked = np.argsort(-scores, axis=1).tolist()
    truths = [np.flatnonzero(row).tolist() for row in targets]
    ours = [metrics.average_precision(row, true) for row, true in zip(ranked, truths, strict=True)]
    assert np.mean(ours) == pytest.approx(reference.label_ranking_average_precision_score(targets, scores))


def test_the_precision_of_classes_is_scikit_learns_macro_average(random_answers):
    scores, truths = random_answers
    ours = metrics.class_average_precision(scores, [(true,) for true in truths.tolist()])
    assert ours.mean() == pytest.approx(reference.average_precision_score(np.eye(9)[truths], scores, average="macro"))


def test_a_class_without_videos_has_no_precision_and_no_recall():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], dtype=np.float32)
    precision = metrics.class_average_precision(scores, [(0,), (1,)])
    assert precision[:2].tolist() == [1.0, 1.0]
    assert np.isnan(precision[2])
    recall = metrics.class_recall(np.array([[0], [1]]), [(0,), (1,)], classes=3)
    assert recall.videos.tolist() == [1, 1, 0]
    assert np.isnan(recall.share[2])


def test_class_accuracy_is_scikit_learns_recall(random_answers):
    scores, truths = random_answers
    answers = scores.argmax(axis=1)
    ours = metrics.class_recall(answers[:, None], [(true,) for true in truths.tolist()], classes=9)
    assert ours.share == pytest.approx(reference.recall_score(truths, answers, average=None))
    assert ours.videos.tolist() == np.bincount(truths, minlength=9).tolist()


def test_two_truths_of_one_video_can_both_be_found():
    best = np.array([[4, 2, 0]])
    assert metrics.class_recall(best, [(2, 4)], classes=5).share[[2, 4]].tolist() == [1.0, 1.0]
    assert metrics.class_recall(best, [(2,)], classes=5).share[2] == 0.0


def test_mistakes_are_counted_by_truth_and_answer():
    confusion = metrics.count_confusion(np.array([7, 7, 3, 3, 3, 9]), np.array([7, 3, 3, 7, 7, 9]))
    assert confusion.classes.tolist() == [3, 7, 9]
    assert confusion.counts.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 1]]
    assert confusion.pairs() == [(7, 3, 2), (3, 7, 1)]


def test_the_confusion_matrix_is_scikit_learns(random_answers):
    scores, truths = random_answers
    answers = scores.argmax(axis=1)
    assert (metrics.count_confusion(answers, truths).counts == reference.confusion_matrix(truths, answers)).all()


def test_the_expected_error_of_five_answers_worked_out_by_hand():
    # Two bins. (0, 0.5]: scores 0.3 and 0.5, one right: |0.5 - 0.4| = 0.1, twice.
    # (0.5, 1]: scores 0.6, 0.9 and 0.9, two right: |2/3 - 0.8| = 2/15, three times.
    found = metrics.measure_reliability(
        np.array([0.3, 0.5, 0.6, 0.9, 0.9]), np.array([False, True, True, True, False]), bins=2
    )
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.4, 0.8])
    assert found.accuracy == pytest.approx([0.5, 2 / 3])
    assert found.expected_error == pytest.approx((2 * 0.1 + 3 * 2 / 15) / 5)
    assert found.largest_error == pytest.approx(2 / 15)


def test_sure_and_right_is_no_error_and_sure_and_wrong_is_all_of_it():
    sure = np.ones(4)
    assert metrics.measure_reliability(sure, np.ones(4, dtype=bool)).expected_error == 0.0
    assert metrics.measure_reliability(sure, np.zeros(4, dtype=bool)).expected_error == 1.0


def test_there_are_fifteen_bins_and_a_bin_holds_its_upper_edge():
    found = metrics.measure_reliability(np.array([0.0, 1 / 15, 1.0]), np.array([True, True, True]))
    assert len(found.counts) == 15
    assert found.counts[0] == 2
    assert found.counts[14] == 1


def test_scores_that_mean_what_they_say_have_a_small_error():
    rng = np.random.default_rng(3)
    confidence = rng.random(50_000)
    assert metrics.measure_reliability(confidence, rng.random(50_000) < confidence).expected_error < 0.01
    assert metrics.measure_reliability(confidence, rng.random(50_000) < 0.5).expected_error == pytest.approx(
        0.25, abs=0.01
    )


@pytest.mark.parametrize("confidence", [np.array([1.2]), np.array([-0.1]), np.array([np.nan]), np.array([])])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        metrics.measure_reliability(confidence, np.ones(len(confidence), dtype=bool))


def test_the_brier_score_goes_from_perfect_to_worst():
    scores = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0.5, 0.5, 0]], dtype=np.float32)
    assert metrics.brier_scores(scores, [(0,), (0,), (0,), (0, 1)]).tolist() == [0.0, 2.0, 0.5, 0.0]


def test_a_truth_that_is_no_class_leaves_the_brier_score_all_its_distance():
    assert metrics.brier_scores(np.array([[1, 0]], dtype=np.float32), [(-1,)]).tolist() == [1.0]
