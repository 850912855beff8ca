"""The entry point of the server's container: check, then run Triton."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from clipserve_container.arguments import triton_command
from clipserve_container.certificates import read_expiry
from clipserve_container.check import report
from clipserve_container.notices import find_notices
from clipserve_container.preflight import find_problems
from clipserve_container.readiness import Readiness
from clipserve_container.repository import choose_models, names_to_serve
from clipserve_container.service import Service
from clipserve_container.settings import HTTP_PORT, READY_PORT, SettingError, Settings


def main(more: list[str]) -> int:
    """Run Triton until it ends. Returns 1 when a check fails.

    more: further options of tritonserver.
    """
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as error:
        return report([str(error)])
    problems = find_problems(settings)
    if problems:
        return report(problems)
    report(find_notices(settings))
    models = choose_models(settings.repository, settings.models)
    command = triton_command(settings, models, admin_key=admin_key(settings), api_key=read_key(settings, "api_key"))
    try:
        service = Service(
            [*command, *more],
            Readiness(
                f"http://127.0.0.1:{HTTP_PORT}", names_to_serve(settings.repository, models), settings.repository
            ),
            ready_port=READY_PORT,
            restart_after=settings.restart_after,
            watch_seconds=settings.watch_seconds,
            drain_seconds=settings.drain_seconds,
            exit_seconds=settings.exit_seconds,
            in_flight=settings.state / "in_flight",
            certificate_expiry=None if settings.tls == "off" else read_expiry(settings.server_certificate),
        )
        return service.run()
    except FileNotFoundError:
        return report([f"there is no {command[0]} on PATH: the image is not built on Triton's"])
    except OSError as error:
        return report([f"port {READY_PORT} of this container cannot be had: {error.strerror}"])


def admin_key(settings: Settings) -> str:
    """The operator's key, or a new one for this start, which stays in this container."""
    key = read_key(settings, "admin_key") or secrets.token_hex(32)
    write_private(settings.state / "admin_key", key)
    return key


def read_key(settings: Settings, name: str) -> str | None:
    """Read a key from the folder of secrets; None where there is no such file."""
    path = settings.secrets / name
    return path.read_text().strip() if path.exists() else None


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
