"""Downloads of videos from http(s) addresses, within limits of size and time."""

import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from clipserve.cancellation import Cancellation
from clipserve.checks import LONGEST_SECONDS, MAX_VIDEO_BYTES, read_float, read_int
from clipserve.errors import InvalidRequest, VideoNotReadable, VideoTooLarge
from clipserve.names import spell_name
from clipserve.proxies import Proxies
from clipserve.sources.addresses import Address, hide_credentials, is_address

CHUNK_BYTES = 256 * 1024
LENGTH_DIGITS = 18  # more bytes than any file has


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of one download.

    Attributes:
        max_bytes: a larger video raises VideoTooLarge. The default, 512 MiB, is the server's own limit.
        seconds: time from the request to the last byte; a slower download raises VideoNotReadable.
    """

    max_bytes: int = 512 * 1024 * 1024
    seconds: float = 60.0

    def __post_init__(self) -> None:
        size, seconds = read_int(self.max_bytes), read_float(self.seconds)
        if not (size and 0 < size <= MAX_VIDEO_BYTES and seconds and 0 < seconds <= LONGEST_SECONDS):
            raise InvalidRequest(
                f"max_bytes must be from 1 to {MAX_VIDEO_BYTES:,}, and seconds positive and at most"
                f" {LONGEST_SECONDS:,}; got {self}"
            )


def download(address: str, limits: DownloadLimits, cancellation: Cancellation) -> bytes:
    """Fetch an address. Redirects are followed to http and https only; proxies are taken from the environment,
    except for addresses of this machine.

    Blanks and letters outside ASCII are quoted. `user:password@` is sent as the header Authorization only; it reaches
    neither a name server nor a message.

    Raises:
        VideoNotReadable: the download fails, or takes too long.
        VideoTooLarge: there are more bytes than allowed.
        RequestCancelled: `cancellation` was cancelled.
    """
    transfer = _Transfer(limits.seconds)
    name = spell_name(hide_credentials(address))
    try:
        request = Address.parse(address).make_request()
        with cancellation.calls(transfer.end), transfer.opener().open(request, timeout=limits.seconds) as response:
            return _read(response, name, limits)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        cancellation.check()  # a connection that was ended fails like any other
        reason = _name_reason(exc, limits) + transfer.proxies.describe(exc)
        raise VideoNotReadable(f"cannot fetch {name!r}: {reason}", video=name) from exc


def _read(response: Any, name: str, limits: DownloadLimits) -> bytes:
    stated = _read_length(response)
    check_size(stated, name, limits)
    chunks, size = [], 0
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except http.client.IncompleteRead as exc:
            raise http.client.HTTPException(
                f"the answer comes in chunks, and a chunk is broken or cut off after {size:,} bytes"
            ) from exc
        if not chunk:
            break
        size += len(chunk)
        check_size(size, name, limits)
        chunks.append(chunk)
    if size < stated:
        raise http.client.HTTPException(f"it ended after {size:,} of {stated:,} bytes")
    return b"".join(chunks)


def _read_length(response: Any) -> int:
    """The length that the answer states; 0 if it states none, or comes in chunks, which have lengths of their own."""
    stated = response.headers.get("Content-Length", "").strip()
    if response.chunked or not stated:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) <= LENGTH_DIGITS):
        raise http.client.HTTPException(f"the answer states a Content-Length of {stated[:40]!r}, not a number of bytes")
    return int(stated)


def check_size(size: int, name: str, limits: DownloadLimits) -> None:
    """Raise VideoTooLarge for a video of more bytes than the limits allow."""
    if size > limits.max_bytes:
        raise VideoTooLarge(
            f"{name!r} has more than the {limits.max_bytes:,} bytes that one download may have: take a smaller"
            " file, or give download_limits=DownloadLimits(max_bytes=...) in Python",
            video=name,
        )


def explain_time_limit(limits: DownloadLimits) -> str:
    """Why a download ended, and what to do; also on the command line, which has no option for it."""
    return (
        f"it took longer than {limits.seconds:g} s; give download_limits=DownloadLimits(seconds=...) in Python, or"
        " download the file first"
    )


def _name_reason(exc: Exception, limits: DownloadLimits) -> str:
    if isinstance(exc, urllib.error.HTTPError):
        return " ".join(f"the answer was {exc.code} {exc.reason}".split())
    reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(reason, http.client.BadStatusLine) and not isinstance(reason, ConnectionError):
        return "the answer is not HTTP"
    if isinstance(reason, TimeoutError):
        return explain_time_limit(limits)
    return " ".join(str(getattr(reason, "strerror", None) or reason).split()) or type(reason).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, with the credentials where scheme, host and port stay the same."""

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        # urllib's message would show the whole address that is not followed, a password included.
        try:
            scheme = urlsplit(headers.get("location") or headers.get("uri") or "").scheme
        except ValueError:
            raise urllib.error.URLError(f"the answer {code} redirects to an address that is not valid") from None
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


class _Transfer:
    """The sockets of one download, which urllib does not give access to: to limit their waits, and to end them."""

    def __init__(self, seconds: float) -> None:
        self.proxies = Proxies()
        self._end = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._ended = False

    def opener(self) -> urllib.request.OpenerDirector:
        """An opener for http and https, and for nothing else: no file, no ftp, no data."""
        transfer = self

        class Response(http.client.HTTPResponse):
            def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
                super().__init__(sock, *arguments, **options)
                self.fp = io.BufferedReader(_LimitedReads(self.fp.detach(), sock, transfer.left))

        class Connection(http.client.HTTPConnection):
            response_class = Response

            def connect(self) -> None:
                self.timeout = transfer.left()
                super().connect()
                transfer.keep(self.sock)

        class EncryptedConnection(Connection, http.client.HTTPSConnection):
            pass

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

    def end(self) -> None:
        """End the wait for bytes."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _LimitedReads(io.RawIOBase):
    """The reads of one socket, with one deadline for all of them. A socket's timeout starts again with each read."""

    def __init__(self, reads: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._reads, self._socket, self._left = reads, sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Raises TimeoutError."""
        self._socket.settimeout(self._left())
        return self._reads.readinto(buffer)

    def close(self) -> None:
        self._reads.close()
        super().close()
