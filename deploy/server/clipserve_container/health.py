"""Docker's health check: asks the port of the service, which asks for every model by name."""

from __future__ import annotations

import sys
import urllib.error

from clipserve_container.local_http import open_url
from clipserve_container.settings import READY_PORT

SECONDS = 25.0


def main() -> int:
    """Returns 0 when all models are ready; otherwise prints which are not, for `docker inspect`."""
    try:
        with open_url(f"http://127.0.0.1:{READY_PORT}/ready", timeout=SECONDS):
            return 0
    except urllib.error.HTTPError as error:
        problem = error.read().decode()
    except OSError as error:
        problem = str(error)
    print(problem, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
