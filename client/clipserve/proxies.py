"""Proxies from the environment: never used for this machine, and named in errors that they may have caused."""

import ipaddress
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

# The variables in which gRPC looks for a proxy, and for hosts to reach without one; the first that is set counts
# (http_proxy_mapper.cc of its core).
GRPC_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
GRPC_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")

LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")

# An address of a proxy; Proxy Authentication Required, Bad Gateway, Service Unavailable and Gateway Timeout.
_PROXY = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/]*@)?(?:\[[^\]/]*\]|[^/:@\[\]\s]+)(?::[0-9]+)?(?:/.*)?", re.IGNORECASE
)
_STATUSES_OF_PROXIES = (407, 502, 503, 504)

# gRPC targets that are sockets of this machine, and schemes ahead of a host.
_SOCKETS = ("unix:", "unix-abstract:", "vsock:")
_SCHEME = re.compile(r"^(?:dns|ipv4|ipv6|passthrough):(?://[^/]*/)?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether this is a name or an address of this machine: localhost, 127.0.0.1, ::1, or 0.0.0.0 for any interface."""
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
    """The variable that sends gRPC's connections to `url` through a proxy; None if they go directly."""
    host = read_host(url)
    variable = next((name for name in GRPC_PROXIES if environment.get(name)), None)
    exceptions = next(filter(None, map(environment.get, GRPC_EXCEPTIONS)), "")
    if variable is None or is_local(url) or _is_listed(host, exceptions):
        return None
    return variable


class Proxies(urllib.request.ProxyHandler):
    """For an opener of urllib: the proxies of the environment, but none for addresses of this machine.

    Attributes:
        variable: the variable that names the proxy of the last request; None if the request went directly.
        host: the host of that request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.variable: str | None = None
        self.host = ""

    def http_request(self, req: urllib.request.Request) -> urllib.request.Request:
        if not req.has_proxy():
            self.variable = None  # a redirect may go directly
        return req

    https_request = http_request

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        self.host = urlsplit(req.full_url).hostname or ""
        if is_loopback(self.host) or urllib.request.proxy_bypass(req.host):
            return None
        names = (f"{type}_proxy", f"{type}_proxy".upper())  # urllib prefers them in this order
        self.variable = next((name for name in names if os.environ.get(name)), None)
        if not _PROXY.fullmatch(proxy):  # urllib's message would show it
            raise urllib.error.URLError("the proxy's address is not valid: give http://host:port")
        return super().proxy_open(req, proxy, type)

    def describe(self, failure: Exception) -> str:
        """A sentence that names the variable, if its proxy may have caused the failure, without its secret value."""
        if self.variable is None or (
            isinstance(failure, urllib.error.HTTPError) and failure.code not in _STATUSES_OF_PROXIES
        ):
            return ""
        return (
            f". The connection goes through the proxy that the environment variable {self.variable} names: if that one"
            f" does not reach the server, list {self.host} in no_proxy."
        )


def except_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep other programs, and libraries, from reaching this machine through a proxy."""
    exceptions = {"no_proxy": environment.get("no_proxy") or environment.get("NO_PROXY") or ""}
    if listed := environment.get("no_grpc_proxy"):
        exceptions["no_grpc_proxy"] = listed
    return {name: ",".join(filter(None, [listed, *LOOPBACK])) for name, listed in exceptions.items()}


def _is_listed(host: str, exceptions: str) -> bool:
    """Reads no_proxy as gRPC does: suffixes of names, and networks."""
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
