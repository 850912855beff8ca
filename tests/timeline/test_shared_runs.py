"""How many windows of a timeline share a run of the network."""

from timeline_model.shared_runs import SharedRuns

BUDGET_SECONDS = 1.0


def grow(shared: SharedRuns, *, window_seconds: float, largest_equal: int = 1000, runs: int = 20) -> tuple[int, int]:
    """Run so often, always with as many windows as are wanted. Returns the last number, and the trials."""
    trials = windows = 0
    for _ in range(runs):
        windows = shared.wanted
        if shared.take_trial(windows):
            trials += 1
            shared.end_trial(windows, is_equal=windows <= largest_equal)
        else:
            shared.observe(windows, windows * window_seconds)
    return windows, trials


def test_runs_grow_to_half_of_the_budget_or_more() -> None:
    shared = SharedRuns(64, BUDGET_SECONDS)
    assert grow(shared, window_seconds=0.1) == (8, 3)
    assert shared.size_for(8) == 8
    assert shared.size_for(7) == 1, "other numbers were not tried"


def test_runs_grow_to_what_a_run_takes() -> None:
    assert grow(SharedRuns(4, BUDGET_SECONDS), window_seconds=0.001) == (4, 2)


def test_runs_with_other_bits_are_not_used() -> None:
    shared = SharedRuns(64, BUDGET_SECONDS)
    assert grow(shared, window_seconds=0.001, largest_equal=4) == (4, 3)
    assert grow(shared, window_seconds=0.001, largest_equal=4) == (4, 0), "and not tried again"


def test_runs_that_other_requests_slow_down_grow_again_without_a_trial() -> None:
    shared = SharedRuns(64, BUDGET_SECONDS)
    assert grow(shared, window_seconds=0.1) == (8, 3)
    assert grow(shared, window_seconds=0.6) == (1, 0)
    assert grow(shared, window_seconds=0.1) == (8, 0)
