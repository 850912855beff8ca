"""The highest rate within the limit."""

import pytest

from clipserve.loadtest.load_levels import LatencyLimit, search_rate

LIMIT = LatencyLimit(95, 200)


def search(capacity, steps=6):
    tried = []

    def meets(rate):
        tried.append(rate)
        return rate <= capacity

    return search_rate(meets, LIMIT, low=1, high=65, steps=steps), tried


@pytest.mark.parametrize("capacity", [1, 7.3, 33, 64.9])
def test_the_answer_lies_between_the_highest_that_meets_and_the_lowest_that_does_not(capacity):
    found, tried = search(capacity)
    assert found.met <= capacity < found.missed
    assert found.missed - found.met == pytest.approx(1)
    assert len(tried) == 8
    assert "is the highest rate that meets p95 within 200 ms" in str(found)


def test_it_says_when_even_the_lowest_misses():
    found, tried = search(0.5)
    assert tried == [1]
    assert str(found) == "even the lowest rate tried, 1 a second, misses p95 within 200 ms"


def test_it_says_when_even_the_highest_meets():
    found, tried = search(1000)
    assert tried == [1, 65]
    assert str(found) == "even the highest rate tried, 65 a second, meets p95 within 200 ms"
