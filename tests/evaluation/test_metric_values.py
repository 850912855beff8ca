"""Intervals contain the true value as often as they claim."""

import numpy as np
import pytest

from clipserve.evaluation.metric_values import Interval, mcnemar_p, mean_interval, paired_interval


def test_the_difference_to_itself_is_nothing_for_sure():
    values = np.random.default_rng(1).random(50)
    assert paired_interval(values, values) == Interval(0.0, 0.0)


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(2)
    first, second = rng.random(80), rng.random(80)
    assert paired_interval(first, second) == paired_interval(first, second)
    assert paired_interval(first, second) != paired_interval(first, second, seed=1)


def test_all_right_is_not_sure_to_stay_so():
    interval = mean_interval(np.ones(12))
    assert interval.high == pytest.approx(1.0)
    assert interval.low == pytest.approx(12 / (12 + 1.959964**2))  # Wilson's formula at its end


def test_a_single_answer_says_little():
    assert mean_interval(np.array([1.0])).low < 0.25
    assert mean_interval(np.array([0.5])) is None
    assert paired_interval(np.array([0.5]), np.array([0.1])) is None


@pytest.mark.parametrize("draw", [lambda rng: rng.random(40) ** 2, lambda rng: (rng.random(40) < 1 / 3) * 1.0])
def test_intervals_hold_the_true_mean_about_nineteen_times_in_twenty(draw):
    rng = np.random.default_rng(5)
    held = sum(1 / 3 in mean_interval(draw(rng)) for _ in range(200))
    assert 180 <= held <= 199


def test_pairing_takes_out_what_makes_a_video_hard_for_both():
    rng = np.random.default_rng(6)
    hardness = rng.random(60)
    better = hardness + 0.05 + rng.normal(0, 0.02, 60)
    assert paired_interval(better, hardness).low > 0
    apart = mean_interval(better)
    assert hardness.mean() in apart


def test_videos_that_one_model_alone_gets_right_are_few():
    assert 0.0 in paired_interval(np.ones(2), np.zeros(2))
    right, same = np.repeat([1.0, 0.0], [6, 34]), np.zeros(40)  # six won, none lost
    found = paired_interval(right, same)
    middle, reach = 6 / 42, 1.959964 * np.sqrt(7 - 6**2 / 42) / 42  # as Agresti and Min write it
    assert (found.low, found.high) == pytest.approx((middle - reach, middle + reach))
    assert paired_interval(same, right) == Interval(-found.high, -found.low)


@pytest.mark.parametrize(("won", "lost"), [(0.9, 0.02), (0.1, 0.02), (0.3, 0.3)])
@pytest.mark.parametrize("videos", [10, 40])
def test_intervals_of_differences_hold_the_true_one_about_nineteen_times_in_twenty(won, lost, videos):
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(500):
        kinds = rng.choice(3, size=videos, p=[won, lost, 1 - won - lost])
        held += won - lost in paired_interval((kinds == 0) * 1.0, (kinds == 1) * 1.0)
    assert held >= 460


def test_mcnemar_counts_only_the_videos_where_one_is_right():
    same = np.array([True] * 30 + [False] * 10)
    assert mcnemar_p(same, same) == 1.0
    # Six won, none lost: 2 / 2**6 for either side.
    right = np.array([True] * 36 + [False] * 4)
    assert mcnemar_p(right, same) == pytest.approx(2 / 64)
    assert mcnemar_p(same, right) == pytest.approx(2 / 64)


def test_results_of_different_videos_are_no_pairs():
    with pytest.raises(ValueError, match="same videos"):
        paired_interval(np.zeros(3), np.zeros(4))
