"""When requests of the open loop are sent: gaps of a Poisson process, at exactly the rate that was asked for.

perf_analyzer draws its own (--request-distribution poisson) with the same seed each time: of the first hundreds of gaps
the mean is a fifth too long (measured on 24.09: 20.4 answers a second where 26.5 were asked for, twice the same).
"""

import math
import random
from pathlib import Path

SEED = 20
LEAST_GAPS = 50  # perf_analyzer begins anew at the end of the file


def draw_gaps(rate: float, seconds: float) -> list[float]:
    """Seconds between requests: exponential, `rate` a second in the mean of the list, about `seconds` in all."""
    count = max(LEAST_GAPS, math.ceil(rate * seconds))
    # Quantiles, not draws, so that not even a short list is far from the distribution; their order is random.
    gaps = [-math.log(1 - (number + 0.5) / count) for number in range(count)]
    random.Random(SEED).shuffle(gaps)
    scale = count / rate / sum(gaps)
    return [gap * scale for gap in gaps]


def write_gaps(path: Path, rate: float, seconds: float) -> None:
    """For --request-intervals: microseconds, one a line."""
    path.write_text("".join(f"{gap * 1e6:.0f}\n" for gap in draw_gaps(rate, seconds)))
