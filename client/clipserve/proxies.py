"""Proxies that the environment names: not used within one machine, and told of where one may be at fault."""

import ipaddress
import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

# Where gRPC looks for a proxy, and for hosts that go without; in either the first that is set counts
# (http_proxy_mapper.cc of its core).
GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
GRPC_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")

# Sockets of this machine in a gRPC target, and schemes that a host follows.
_SOCKETS = ("unix:", "unix-abstract:", "vsock:")
_SCHEME = re.compile(r"^(?:dns|ipv4|ipv6|passthrough):(?://[^/]*/)?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether this is a name or an address of the machine itself: localhost, 127.0.0.1, ::1, or 0.0.0.0 for any."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _read_address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_local(url: str) -> bool:
    """Whether a gRPC target, such as localhost:8001 or unix:/run/triton.sock, is on this machine."""
    return url.startswith(_SOCKETS) or is_loopback(read_host(url))


def read_host(url: str) -> str:
    """The host of a gRPC target: host:port, or one with a scheme such as dns:///host:port."""
    target = _SCHEME.sub("", url)
    if target.startswith("["):
        return target[1:].partition("]")[0]
    return target.rpartition(":")[0] if target.count(":") == 1 else target


def find_proxy(url: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The variable that sends gRPC's connections to `url` through a proxy; None if they go straight."""
    host = read_host(url)
    variable = next((name for name in GRPC_PROXIES if environment.get(name)), None)
    exceptions = next(filter(None, map(environment.get, GRPC_EXCEPTIONS)), "")
    if variable is None or is_local(url) or _is_listed(host, exceptions):
        return None
    return variable


class Proxies(urllib.request.ProxyHandler):
    """For an opener of urllib: the proxies of the environment, but none for addresses of this machine."""

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        return None if is_loopback(urlsplit(req.full_url).hostname or "") else super().proxy_open(req, proxy, type)


def except_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep other programs, and libraries, from asking this machine through a proxy."""
    exceptions = {"no_proxy": environment.get("no_proxy") or environment.get("NO_PROXY") or ""}
    if listed := environment.get("no_grpc_proxy"):
        exceptions["no_grpc_proxy"] = listed
    return {name: ",".join(filter(None, [listed, *LOOPBACK])) for name, listed in exceptions.items()}


def _is_listed(host: str, exceptions: str) -> bool:
    """As gRPC reads no_proxy: endings of names, and networks."""
    address = _read_address(host)
    for entry in filter(None, (part.strip().lower() for part in exceptions.split(","))):
        if host.lower().endswith(entry):
            return True
        try:
            if address is not None and address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))  # short forms, such as 127.1
        except OSError:
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
