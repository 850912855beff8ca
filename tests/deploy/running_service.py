"""`python -m tests.deploy.running_service JSON`: the container's Service around the Triton of the wheel."""

import json
import sys
from pathlib import Path

from clipserve_container.readiness import Readiness
from clipserve_container.service import Service

DRAIN_SECONDS = 5.0


def main(given: str) -> int:
    what = json.loads(given)
    service = Service(
        what["command"],
        Readiness(what["url"], what["names"], Path(what["repository"])),
        ready_port=what["ready_port"],
        restart_after=2,
        watch_seconds=0.3,
        drain_seconds=DRAIN_SECONDS,
    )
    return service.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
