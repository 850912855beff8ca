"""Whether the host's ports are free; asked by the container that shares the host's network and only checks."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

PORTS = {
    "CLIPSERVE_PORT": ("8001", "gRPC"),
    "CLIPSERVE_METRICS_PORT": ("8002", "metrics"),
}


def find_taken(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each port that cannot be had."""
    host = environment.get("CLIPSERVE_BIND") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for variable, (default, what) in PORTS.items():
        port = environment.get(variable) or default
        with socket.socket(family, socket.SOCK_STREAM) as claim:
            # Without it, a port whose last connections linger in TIME_WAIT would look taken.
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind((host.strip("[]"), int(port)))
            except (ValueError, OverflowError):
                yield f"{variable} is {port!r}, but a port is a number from 1 to 65535"
            except OSError as error:
                yield (
                    f"{host}:{port} cannot be had for {what} ({(error.strerror or str(error)).lower()}): set {variable}"
                    f" to another, or stop what holds it; 'docker compose ps' tells whether it is clipserve itself"
                )
