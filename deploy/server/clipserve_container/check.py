"""`docker compose run --rm check`: would the server start?

This container shares the host's network, so it also checks whether the host's ports are free.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping

from clipserve_container.notices import find_notices
from clipserve_container.preflight import find_problems
from clipserve_container.repository import choose_models
from clipserve_container.settings import SettingError, Settings

PORTS = {
    "CLIPSERVE_PORT": ("8001", "gRPC"),
    "CLIPSERVE_METRICS_PORT": ("8002", "metrics"),
}


def main() -> int:
    """Print the problems. Returns 1 when there is one."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as error:
        return report([str(error)])
    problems = [*find_problems(settings, in_server=False), *find_taken_ports(os.environ)]
    if problems:
        return report(problems)
    report(find_notices(settings))
    models = choose_models(settings.repository, settings.models)
    print(f"clipserve: ready to serve {', '.join(model.name for model in models)}")  # noqa: T201
    return 0


def find_taken_ports(environment: Mapping[str, str]) -> Iterator[str]:
    """A message for each port that cannot be used."""
    host = environment.get("CLIPSERVE_BIND") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for variable, (default, service) in PORTS.items():
        port = environment.get(variable) or default
        with socket.socket(family, socket.SOCK_STREAM) as claim:
            # Otherwise a port with connections in TIME_WAIT looks taken.
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind((host.strip("[]"), int(port)))
            except PermissionError:
                continue  # below 1024: not for this user, but Docker, which is root, opens the port
            except (ValueError, OverflowError):
                yield f"{variable} is {port!r}, but a port is a number from 1 to 65535"
            except OSError as error:
                yield (
                    f"{host}:{port} cannot be used for {service} ({(error.strerror or str(error)).lower()}):"
                    f" set {variable} to another, or stop what holds it; 'docker compose ps' tells whether it is"
                    " clipserve itself"
                )


def report(problems: list[str]) -> int:
    """Print each problem on a line of standard error. Returns the exit status 1."""
    for problem in problems:
        print(f"clipserve: {problem}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
