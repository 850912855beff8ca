"""The ports that Triton listens on."""

import errno
import socket
from collections.abc import Mapping

from clipserve_server.errors import PortTaken, ServerStartError


def claim_ports(host: str, ports: Mapping[str, int]) -> dict[str, int]:
    """Replace each 0 by a free port, and check that the others are free.

    Raises:
        PortTaken: another program listens on one or more; the message has a line for each.
        ServerStartError: the host is no address of this machine.
    """
    claimed: dict[str, int] = {}
    taken: list[str] = []
    held: list[socket.socket] = []
    try:
        for service, port in ports.items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            claim = socket.socket(family, socket.SOCK_STREAM)
            held.append(claim)
            # Otherwise a port with connections in TIME_WAIT looks taken.
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind((host, port))
            except (OSError, TypeError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
                # TypeError: the name cannot be encoded.
                is_about_host = isinstance(error, socket.gaierror | TypeError)
                if is_about_host or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
                    raise ServerStartError(
                        f"{host!r} is no address of this machine to listen on ({reason}); give one by --host: 127.0.0.1"
                        " for this machine alone, 0.0.0.0 for every interface"
                    ) from error
                taken.append(
                    f"{host}:{port} cannot be used for {service} ({reason}); choose another by --{service}-port,"
                    " 0 for any"
                )
            claimed[service] = claim.getsockname()[1]
    finally:
        for claim in held:
            claim.close()
    if taken:
        raise PortTaken("\n".join(taken))
    return claimed
