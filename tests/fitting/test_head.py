"""The head, its penalty and its temperature, on made-up vectors."""

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from clipserve.evaluation.metrics import measure_reliability
from clipserve.fitting.calibration import find_temperature, scale_held_out
from clipserve.fitting.cross_validation import CurvePoint, cross_validate, draw, list_sizes, split
from clipserve.fitting.fitted import advise
from clipserve.fitting.head import Coordinates, Head, fit_weights, softmax


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As `fit` does for few videos: on a busy machine threads wait for each other."""
    with threadpool_limits(1):
        yield


def make_vectors(classes: int, videos: int, size: int, *, distance: float = 4.0, seed: int = 0):
    """float32 [N, D] around a centre for each class, and their classes [N]."""
    rng = np.random.default_rng(seed)
    truths = np.arange(classes * videos) % classes
    centres = rng.normal(size=(classes, size)) * distance / np.sqrt(2 * size)
    return (centres[truths] + rng.normal(size=(len(truths), size)) + 3).astype(np.float32), truths


@pytest.mark.parametrize("size", [20, 500])
@pytest.mark.parametrize("classes", [2, 5])
def test_a_head_says_of_features_what_its_fit_said_of_coordinates(classes: int, size: int) -> None:
    vectors, truths = make_vectors(classes, 12, size)
    coordinates = Coordinates.of(vectors)
    points = coordinates.apply(vectors)
    assert points.shape[1] == min(size, len(vectors))
    weights, bias = fit_weights(points, truths, classes=classes, strength=10.0)
    assert weights.shape == (classes, points.shape[1])
    head = coordinates.make_head(tuple("abcde"[:classes]), weights, bias, temperature=1.7)
    assert head.weights.shape == (classes, size)
    fresh, _ = make_vectors(classes, 3, size, seed=1)
    expected = softmax((coordinates.apply(fresh) @ weights.T + bias) / 1.7)
    np.testing.assert_allclose(head.score(fresh), expected, atol=1e-4)
    np.testing.assert_allclose(head.score(fresh).sum(axis=1), 1)


def test_fewer_coordinates_lose_nothing() -> None:
    vectors, truths = make_vectors(3, 10, 200)
    coordinates = Coordinates.of(vectors)
    plain = Coordinates(coordinates.mean, None, coordinates.scale)
    fresh, _ = make_vectors(3, 5, 200, seed=1)
    scores = []
    for each in (coordinates, plain):
        weights, bias = fit_weights(each.apply(vectors), truths, classes=3, strength=1.0)
        scores.append(each.make_head(("a", "b", "c"), weights, bias, temperature=1).score(fresh))
    np.testing.assert_allclose(*scores, atol=2e-3)


@pytest.mark.filterwarnings("error")
def test_one_video_of_each_of_many_classes_is_enough_for_a_point_of_the_curve() -> None:
    points, truths = make_vectors(30, 1, 40)
    weights, _ = fit_weights(points, truths, classes=30, strength=1.0)
    assert weights.shape == (30, 40)


def test_a_head_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="2 classes take weights"):
        Head(("a", "b"), np.zeros((3, 4), np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_the_temperature_undoes_logits_that_are_too_large_or_too_small(factor: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(4000, 4)) * 2
    truths = np.array([rng.choice(4, p=row) for row in softmax(honest)])
    assert find_temperature(honest * factor, truths) == pytest.approx(factor, rel=0.05)
    scores = scale_held_out(honest * factor, truths, np.arange(4000) % 5)
    assert measure_reliability(scores.max(axis=1), scores.argmax(axis=1) == truths).expected_error < 0.03


def test_without_a_mistake_scores_stay_below_certainty() -> None:
    truths = np.arange(40) % 4
    logits = 100.0 * np.eye(4)[truths]
    score = softmax(logits / find_temperature(logits, truths)).max()
    assert 0.95 < score < 0.995  # one mistake among 42 videos is assumed


def test_each_video_is_held_out_once_with_its_class_in_every_fold() -> None:
    truths = np.repeat([0, 1, 2], [30, 10, 5])
    splits = list(split(truths, folds=5))
    assert sorted(np.concatenate([held_out for _, held_out in splits])) == list(range(45))
    assert all(set(truths[held_out]) == {0, 1, 2} for _, held_out in splits)


def test_held_out_videos_of_noise_are_guessed() -> None:
    """A head that had seen them would know them: there are more values than videos."""
    vectors, truths = make_vectors(4, 12, 60, distance=0.0)
    points = Coordinates.of(vectors).apply(vectors)
    held_out = cross_validate(points, truths, classes=4, progress=lambda _: None)
    assert (held_out.logits.argmax(axis=1) == truths).mean() < 0.45
    weights, bias = fit_weights(points, truths, classes=4, strength=100.0)
    assert ((points @ weights.T + bias).argmax(axis=1) == truths).mean() == 1


def test_the_learning_curve_rises_to_the_held_out_accuracy() -> None:
    vectors, truths = make_vectors(4, 20, 30, distance=3.0)
    held_out = cross_validate(Coordinates.of(vectors).apply(vectors), truths, classes=4, progress=lambda _: None)
    accuracies = [point.accuracy for point in held_out.curve]
    assert [round(point.videos_per_class) for point in held_out.curve] == [1, 2, 4, 8, 16]
    assert accuracies[-1] == (held_out.logits.argmax(axis=1) == truths).mean()
    assert accuracies[-1] > accuracies[0] + 0.1
    assert all(point.interval and point.accuracy in point.interval for point in held_out.curve)
    assert "likely to help" in advise(held_out.curve, guess=0.25)
    assert "may be chance" in advise(held_out.curve, guess=accuracies[-1])


@pytest.mark.parametrize(("videos", "expected"), [(3, [1, 2]), (4, [1, 3]), (5, [1, 2, 4]), (21, [1, 2, 4, 8, 16.8])])
def test_the_last_two_points_of_the_curve_can_be_compared(videos: int, expected: list[float]) -> None:
    """`advise` says of points with about as many videos, which are as accurate, that more videos gain little."""
    vectors, truths = make_vectors(2, videos, 30)
    held_out = cross_validate(Coordinates.of(vectors).apply(vectors), truths, classes=2, progress=lambda _: None)
    assert [point.videos_per_class for point in held_out.curve] == pytest.approx(expected)


def test_more_videos_do_not_help_a_head_without_mistakes() -> None:
    curve = (CurvePoint(1, 0.7, None), CurvePoint(2, 1.0, None))
    assert advise(curve, guess=0.5) == "with 2 videos a class the accuracy is 100.0 %: more cannot help much"


def test_sizes_end_with_all_videos() -> None:
    truths = np.repeat([0, 1], [3, 50])
    assert list_sizes(truths) == [1, 2, 50]
    assert len(draw(truths, 50)) == 53
    assert sorted(truths[draw(truths, 2)]) == [0, 0, 1, 1]
