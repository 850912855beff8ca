"""Docker's health check: every model that should be served is ready, each asked by name.

The server's own flag is not asked: it stays "ready" when the process of a Python model has died. Docker itself restarts
what has ended, never what is unhealthy, so a server that was healthy and fails this check several times in a row is
asked to end; the restart policy does the rest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import urllib.error
import urllib.request

from clipserve_container.repository import RepositoryError, choose_models, names_to_load
from clipserve_container.settings import HTTP_PORT, SettingError, Settings

SECONDS = 5.0


def main() -> int:
    """0 when all are ready; otherwise says which are not."""
    try:
        settings = Settings.from_environment(os.environ)
        names = names_to_load(choose_models(settings.repository, settings.models))
    except (SettingError, RepositoryError) as error:
        return end(f"{error}")
    return judge(settings, find_unready(f"http://127.0.0.1:{HTTP_PORT}", names))


def find_unready(url: str, names: list[str]) -> list[str]:
    """The models that are not ready, with the reason."""
    return [f"{name} ({reason})" for name in names if (reason := ask(f"{url}/v2/models/{name}/ready"))]


def ask(url: str) -> str:
    """Empty when the answer is 200, otherwise why not."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def judge(settings: Settings, unready: list[str]) -> int:
    """Keep count of failures, and end Triton when there were too many after it had been healthy."""
    was_ready, failures = settings.state / "was_ready", settings.state / "failures"
    if not unready:
        was_ready.touch()
        failures.unlink(missing_ok=True)
        return 0
    if settings.restart_after and was_ready.exists():
        count = int(failures.read_text() or 0) + 1 if failures.exists() else 1
        failures.write_text(str(count))
        if count >= settings.restart_after:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((settings.state / "triton.pid").read_text()), signal.SIGTERM)
    return end(f"not ready: {', '.join(unready)}")


def end(message: str) -> int:
    """Say why, for `docker inspect`."""
    print(message, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
