"""`python -m tests.deploy.running_service JSON`: the container's Service around the Triton of the wheel."""

import json
import sys
import time
from pathlib import Path

from clipserve_container.readiness import Readiness
from clipserve_container.service import Service

# The test's videos take longer to decode than requests are taken, and a busy machine does not come to the end of these.
DRAIN_SECONDS, EXIT_SECONDS = 0.1, 120.0


def main(given: str) -> int:
    what = json.loads(given)
    service = Service(
        what["command"],
        Readiness(what["url"], what["names"], Path(what["repository"])),
        ready_port=what["ready_port"],
        restart_after=2,
        watch_seconds=0.3,
        drain_seconds=DRAIN_SECONDS,
        exit_seconds=EXIT_SECONDS,
        in_flight=Path(what["in_flight"]),
        stuck_seconds=what["stuck_seconds"],
        certificate_expiry=time.time() + 365 * 86400,
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
