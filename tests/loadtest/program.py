"""`clipserve loadtest` in a process of its own."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-m", "clipserve", "loadtest"]
# Rates below 25 a second get longer windows than these: each needs ten requests.
QUICK = ("--seconds", "1.2", "--concurrency", "2", "--rate", "25")


def run(*options):
    """Run the program in a process of its own."""
    environment = {**os.environ, "COLUMNS": "200"}
    environment.pop("CLIPSERVE_URL", None)
    command = [*COMMAND, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
