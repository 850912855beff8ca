"""How much of its capacity a server can use, so that its requests are answered in time."""

import math

from clipserve.errors import InvalidRequest
from clipserve.plan.arithmetic import Step
from clipserve.plan.load_test import LoadTestFindings
from clipserve.plan.workload import Workload

# Of the capacity: a closed loop reaches all of it, and at four times the peak 97 % were answered (growth.md).
BULK_UTILISATION = 0.9
# With a latency to keep: above it, a small error of the rate is a large one of the wait.
MAX_UTILISATION = 0.8
SHARE_IN_TIME = 0.95


def choose_utilisation(
    workload: Workload, findings: LoadTestFindings | None, capacity: float, alone: float, steps: list[Step]
) -> tuple[float, float | None]:
    """The share of its capacity at which a server runs, and the p95 there, in milliseconds."""
    wanted = workload.latency
    if wanted is None:
        how = "no latency to keep, so a queue always keeps the server busy"
        steps.append(Step("utilisation", BULK_UTILISATION, "", how))
        return BULK_UTILISATION, None
    if findings is not None and findings.open_loop:
        rate = findings.rate_within(wanted)
        if rate is None:
            raise InvalidRequest(
                f"latency is {wanted:g} ms, and no run of the load test kept that: the best p95 was {alone:.0f} ms"
            )
        utilisation = min(rate / findings.peak, 1.0)
        how = f"{rate:.4g} of {findings.peak:.4g} a second within {wanted:g} ms at p95, measured"
        steps.append(Step("utilisation", utilisation, "", how, findings.source))
        return utilisation, wanted
    if not alone < wanted:
        raise InvalidRequest(
            f"latency is {wanted:g} ms, and one request alone takes about {alone:.0f} ms at p95: more servers do not"
            " change that. Take a smaller model, fewer clips, smaller videos, or another --on"
        )
    utilisation = find_utilisation(capacity, (wanted - alone) / 1000)
    p95 = alone + wait_at(capacity, utilisation) * 1000
    how = f"as high as p95 stays within {wanted:g} ms, at most {MAX_UTILISATION}: {alone:.0f} + wait"
    remark = "the wait follows from queueing theory (M/M/1), which is cautious here; a load test measures it"
    steps.append(Step("utilisation", utilisation, "", how, "", remark))
    steps.append(Step("p95", p95, "ms", f"{alone:.0f} + {p95 - alone:.0f} in the queue"))
    return utilisation, p95


def wait_at(capacity: float, utilisation: float) -> float:
    """Seconds in the queue that 95 % of the requests stay within: M/M/1, ln(utilisation / 0.05) / (capacity - rate)."""
    likely = utilisation / (1 - SHARE_IN_TIME)
    return max(math.log(likely), 0.0) / (capacity * (1 - utilisation))


def find_utilisation(capacity: float, seconds: float) -> float:
    """The highest utilisation, up to MAX_UTILISATION, whose wait is within so many seconds."""
    low, high = 1 - SHARE_IN_TIME, MAX_UTILISATION
    if wait_at(capacity, high) <= seconds:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if wait_at(capacity, middle) <= seconds else (low, middle)
    return low
