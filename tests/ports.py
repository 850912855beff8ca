"""Ports for servers that must be told theirs before they start."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path


def find_free_ports(count: int) -> list[int]:
    """Of 127.0.0.1; nobody listens there.

    Not one that the kernel gives to whoever asks for any port, or connects: until the server starts, another process
    would get it now and then, and a client that tries it again and again would in the end be connected to itself.
    """
    found: list[int] = []
    with ExitStack() as held:
        for port in _candidates():
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(probe.getsockname()[1])
            if len(found) == count:
                return found
    raise OSError(f"this machine has no {count} free ports")


def _candidates() -> Iterator[int]:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    outside = [*range(10_000, first), *range(last + 1, 2**16)]
    # Processes of a parallel run must not begin with the same one, whatever seeds the usual generator.
    yield from random.SystemRandom().sample(outside, len(outside)) if outside else [0] * 100
