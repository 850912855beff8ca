"""Addresses of servers: from what a caller gives to what gRPC connects to."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

# dns:///name:port, and dns:name:port. With dns://SERVER/... gRPC asks that name server itself.
_DNS = re.compile(r"dns:(?:///)?(\[[^\]/]+\]|[^/:\[\]]+):([0-9]{1,5})", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One server.

    Attributes:
        address: what gRPC connects to, such as localhost:8001; messages show it.
        name: the host:port that `address` was looked up for, which certificates and no_proxy are about; None if the
            caller gave the address.
    """

    address: str
    name: str | None = None


@dataclass(frozen=True)
class DnsName:
    """A name that stands for every address it has: dns:///host:port."""

    url: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None if `url` is the address of one server."""
        found = _DNS.fullmatch(url)
        return cls(url, found[1].strip("[]"), int(found[2])) if found else None

    def look_up(self) -> list[Target]:
        """The servers that have the name now. Blocks; [] if the name has no address, or no name server answers."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        # A server with addresses of both kinds is one server.
        kind = socket.AF_INET if any(item[0] == socket.AF_INET for item in found) else socket.AF_INET6
        hosts = dict.fromkeys(str(item[4][0]) for item in found if item[0] == kind)
        name = _join(self.host, self.port)
        return [Target(_join(host, self.port), name) for host in hosts]


def _join(host: str, port: int) -> str:
    """host:port, with an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses in a list, or in a text where commas separate them. A path of a socket may have commas."""
    if not isinstance(urls, str):
        return tuple(urls)
    return (urls,) if urls.startswith("unix") else tuple(part.strip() for part in urls.split(","))
