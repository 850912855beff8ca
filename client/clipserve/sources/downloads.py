"""Fetching a video from an http(s) address, within limits of size and time."""

import http.client
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from clipserve import defaults
from clipserve.amounts import read_real, read_whole
from clipserve.batches.cancellation import Cancellation
from clipserve.errors import InvalidRequest, VideoNotReadable, VideoTooLarge
from clipserve.names import spell_name
from clipserve.proxies import Proxies
from clipserve.sources.addresses import Address, hide_credentials, is_address

CHUNK_BYTES = 256 * 1024
LENGTH_DIGITS = 18  # more bytes than any file has


@dataclass(frozen=True)
class DownloadLimits:
    """What fetching one address may take.

    Attributes:
        max_bytes: of one video; a larger one is VideoTooLarge.
        seconds: from the first word to the last byte; a slower one is VideoNotReadable.
    """

    max_bytes: int = defaults.MAX_DOWNLOAD_BYTES
    seconds: float = defaults.DOWNLOAD_SECONDS

    def __post_init__(self) -> None:
        size, seconds = read_whole(self.max_bytes), read_real(self.seconds)
        if not (size and 0 < size <= defaults.MAX_VIDEO_BYTES and seconds and 0 < seconds <= defaults.LONGEST_SECONDS):
            raise InvalidRequest(
                f"max_bytes is from 1 to {defaults.MAX_VIDEO_BYTES:,}, and seconds is positive and at most"
                f" {defaults.LONGEST_SECONDS:,}; got {self}"
            )


def download(address: str, limits: DownloadLimits, cancellation: Cancellation) -> bytes:
    """Fetch an address. Redirects are followed to http and https only; proxies are taken from the environment,
    except for addresses of this machine.

    A blank or a letter outside ASCII in it is quoted. `user:password@` is sent as the header Authorization, and nowhere
    else: not to a name server, not into a message.

    Raises:
        VideoNotReadable: it cannot be had, or not in time.
        VideoTooLarge: it has more bytes than allowed.
        RequestCancelled: the run was closed.
    """
    visit = _Visit(limits.seconds)
    name = spell_name(hide_credentials(address))
    try:
        request = Address.parse(address).make_request()
        with cancellation.ending(visit.end), visit.opener().open(request, timeout=limits.seconds) as response:
            return _read(response, name, limits, visit)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        cancellation.check()  # ending a connection looks like its failure
        reason = _name_reason(exc, limits) + visit.proxies.describe(exc)
        raise VideoNotReadable(f"cannot fetch {name!r}: {reason}", video=name) from exc


def _read(response: Any, name: str, limits: DownloadLimits, visit: "_Visit") -> bytes:
    stated = _read_length(response)
    _check_size(stated, name, limits)
    chunks, size = [], 0
    while True:
        visit.limit_next_wait()
        try:
            chunk = response.read1(CHUNK_BYTES)
        except http.client.IncompleteRead as exc:
            raise http.client.HTTPException(
                f"the answer comes in chunks, and a chunk is broken or cut off after {size:,} bytes"
            ) from exc
        if not chunk:
            break
        size += len(chunk)
        _check_size(size, name, limits)
        chunks.append(chunk)
    if size < stated:
        raise http.client.HTTPException(f"it ended after {size:,} of {stated:,} bytes")
    return b"".join(chunks)


def _read_length(response: Any) -> int:
    """The bytes that the answer states; 0 if it states none, or comes in chunks, which have lengths of their own."""
    stated = response.headers.get("Content-Length", "").strip()
    if response.chunked or not stated:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) <= LENGTH_DIGITS):
        raise http.client.HTTPException(f"the answer states a Content-Length of {stated[:40]!r}, not a number of bytes")
    return int(stated)


def _check_size(size: int, name: str, limits: DownloadLimits) -> None:
    if size > limits.max_bytes:
        raise VideoTooLarge(
            f"{name!r} has more than the {limits.max_bytes:,} bytes that one download may have: take a smaller"
            " file, or give download_limits=DownloadLimits(max_bytes=...)",
            video=name,
        )


def _name_reason(exc: Exception, limits: DownloadLimits) -> str:
    if isinstance(exc, urllib.error.HTTPError):
        return " ".join(f"the answer was {exc.code} {exc.reason}".split())
    reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(reason, http.client.BadStatusLine) and not isinstance(reason, ConnectionError):
        return "the answer is not HTTP"
    if isinstance(reason, TimeoutError):
        return f"it took longer than {limits.seconds:g} s; give download_limits=DownloadLimits(seconds=...)"
    return " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(reason).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; credentials go along where scheme, host and port stay what they were."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        # Of an address that is not followed, urllib's message would show all, a password too.
        try:
            scheme = urlsplit(headers.get("location") or headers.get("uri") or "").scheme
        except ValueError:
            raise urllib.error.URLError(f"the answer {code} redirects to an address that is none") from None
        if scheme not in ("", "http", "https"):
            raise urllib.error.URLError(
                f"the answer {code} redirects to an address that begins with {scheme}:, not with http: or https:"
            )
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is None or not is_address(newurl):
            return following
        before, after = Address.parse(req.full_url), Address.parse(newurl)
        following = after.make_request()
        authorization = req.unredirected_hdrs.get("Authorization")
        if authorization and after.server == before.server:
            following.unredirected_hdrs.setdefault("Authorization", authorization)
        return following


class _Visit:
    """The sockets of one download, at hand to be limited and ended: urllib keeps them to itself."""

    def __init__(self, seconds: float) -> None:
        self.proxies = Proxies()
        self._end = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._ended = False

    def opener(self) -> urllib.request.OpenerDirector:
        """An opener for http and https, and for nothing else: no file, no ftp, no data."""
        visit = self

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.timeout = visit.left()
                super().connect()
                visit.keep(self.sock)

        class EncryptedConnection(http.client.HTTPSConnection):
            def connect(self) -> None:
                self.timeout = visit.left()
                super().connect()
                visit.keep(self.sock)

        class Http(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Connection, req)

        class Https(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(EncryptedConnection, req)

        opener = urllib.request.OpenerDirector()
        for handler in (
            self.proxies,
            urllib.request.UnknownHandler(),
            Http(),
            Https(),
            urllib.request.HTTPDefaultErrorHandler(),
            _Redirects(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        return opener

    def keep(self, sock: socket.socket) -> None:
        """Note the socket in use."""
        self._socket = sock
        if self._ended:
            self.end()

    def left(self) -> float:
        """Seconds left. Raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def limit_next_wait(self) -> None:
        """Let the next wait for bytes end with the whole download's time, however slowly they drip."""
        assert self._socket is not None
        self._socket.settimeout(self.left())

    def end(self) -> None:
        """Wake whoever waits for bytes."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
