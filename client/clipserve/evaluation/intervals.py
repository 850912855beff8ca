"""How far a figure may be off because just these videos were drawn: 95 % intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipserve.evaluation.extra import load

LEVEL = 0.95
RESAMPLES = 2000  # the ends of the interval then move by some 2 % of its width from seed to seed
BATCH_VALUES = 2_000_000  # resampled at a time: 32 MB with their indices
SEED = 20170604

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: Floats, *, seed: int = SEED) -> Interval | None:
    """Interval of the mean of `values` [N]; None for a single value that is no share.

    Right or wrong (0 and 1 only) takes Wilson's interval, which stays honest where all are right: there a
    bootstrap would claim to be sure. Anything else takes the percentile bootstrap, seeded.
    """
    if np.isin(values, (0.0, 1.0)).all():
        test = load("scipy.stats").binomtest(int(values.sum()), len(values))
        found = test.proportion_ci(LEVEL, method="wilson")
        return Interval(float(found.low), float(found.high))
    return _bootstrap(values, seed)


def paired_interval(values: Floats, baseline: Floats, *, seed: int = SEED) -> Interval | None:
    """Interval of mean(values - baseline) over the same videos [N]: paired bootstrap, percentiles, seeded.

    Whole videos are drawn, both results of each together, so what makes a video hard for both cancels out.
    None for fewer than two videos.
    """
    if values.shape != baseline.shape:
        raise ValueError(f"pairs come from the same videos, got {len(values)} and {len(baseline)} of them")
    return _bootstrap(values - baseline, seed)


def mcnemar_p(correct: npt.NDArray[np.bool_], baseline: npt.NDArray[np.bool_]) -> float:
    """Exact p of McNemar's test that both are right equally often, from the videos where only one is right."""
    if correct.shape != baseline.shape:
        raise ValueError(f"pairs come from the same videos, got {len(correct)} and {len(baseline)} of them")
    won, lost = int(np.sum(correct & ~baseline)), int(np.sum(~correct & baseline))
    if won + lost == 0:
        return 1.0
    return float(load("scipy.stats").binomtest(won, won + lost, 0.5).pvalue)


def _bootstrap(values: Floats, seed: int) -> Interval | None:
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # every resample is the same
        return Interval(float(values[0]), float(values[0]))
    found = load("scipy.stats").bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_VALUES // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))
