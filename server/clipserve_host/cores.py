"""How many cores there are for decode workers.

decode_pool/settings.py of the model repository counts in the same way.
"""

from __future__ import annotations

import os
from pathlib import Path

# The files with the quota and the period of a control group, of version 2 and of version 1.
QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use, by its affinity and its container's quota.

    cgroup: the folder of its control groups.
    """
    cores = len(os.sched_getaffinity(0))
    for names in QUOTAS:
        try:
            quota, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
        except (OSError, ValueError):  # the files of the other version, or a quota of "max"
            continue
        return max(1, min(cores, -(-quota // period))) if quota > 0 and period > 0 else cores
    return cores
