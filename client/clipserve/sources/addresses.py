"""http(s) addresses as people write them: recognised, shown without credentials, and quoted for a request."""

import base64
import re
import string
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote_to_bytes
from urllib.request import Request

from clipserve.proxies import is_loopback
from clipserve.sources.remote_paths import RemotePath, hide_signatures, is_remote

# Scheme, user:password@host:port, and the rest.
_PARTS = re.compile(r"(https?://)([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

_BAD_PORT = re.compile(r":(?![0-9]*$)[^\]]*$")


def is_address(source: object) -> bool:
    """Whether this is an http(s) address."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def is_elsewhere(source: object) -> bool:
    """Whether this is an address, and no path of a file: http(s), or a store that fsspec opens."""
    return is_address(source) or is_remote(source)


def hide_credentials(address: str) -> str:
    """The address without credentials, for rows and messages."""
    return Address.parse(address).shown if is_address(address) else RemotePath.parse(address).shown


@dataclass(frozen=True, repr=False)
class Address:
    """An address in parts.

    Attributes:
        scheme: with its slashes, as it was written.
        credentials: the part ahead of the @, quoted as in the address; "" if there is none.
        place: host and port.
        rest: path, query and fragment.
    """

    scheme: str
    credentials: str
    place: str
    rest: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Take an http(s) address apart."""
        found = _PARTS.match(address)
        if found is None:
            raise ValueError("an address must begin with http:// or https://")
        scheme, authority, rest = found.groups()
        credentials, _, place = authority.rpartition("@")
        return cls(scheme, credentials, place, rest)

    @property
    def shown(self) -> str:
        """The address without credentials and signatures. Rows are told apart by it, so `?key=...` stays."""
        if "@" in self.rest and self._may_be_credentials():
            return hide_signatures(f"{self.scheme}...{self.rest.rpartition('@')[2]}")
        return hide_signatures(f"{self.scheme}{self.place}{self.rest}")

    @property
    def server(self) -> str:
        """Scheme, host and port, to compare."""
        return f"{self.scheme}{self.place}".lower()

    def make_request(self) -> Request:
        """A request for it: blanks, control characters and letters outside ASCII are quoted; what is quoted stays so.

        Credentials are sent as the header Authorization to this host alone, and never with a redirect to another.

        Raises:
            ValueError: the host is not a valid host name.
        """
        if self._has_bad_port():
            raise ValueError(
                "the port is not a number; in a user name or password write %2F for /, %3A for : and %40 for @"
            )
        host, colon, port = self.place.partition(":")
        place = self.place if self.place.isascii() else host.encode("idna").decode() + colon + port
        rest = quote(self.rest.encode("utf-8", "surrogateescape"), safe=string.punctuation)
        request = Request(f"{self.scheme}{place}{rest}", headers={"User-Agent": "clipserve"})
        if self.credentials:
            user, colon, password = self.credentials.partition(":")
            known = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
            # Unredirected: urllib leaves it out of the request that follows a redirect.
            request.add_unredirected_header("Authorization", f"Basic {known}")
        return request

    def _has_bad_port(self) -> bool:
        return _BAD_PORT.search(self.place) is not None

    def _may_be_credentials(self) -> bool:
        """Whether `place` may be a user and the beginning of a password with a slash, as in user:12/34@host."""
        name, colon, _ = self.place.partition(":")
        return self._has_bad_port() or bool(colon and not {".", "["} & {*name} and not is_loopback(name))
