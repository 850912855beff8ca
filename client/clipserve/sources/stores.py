"""Object stores and archives, through fsspec: what is in them, and the bytes of one object.

Credentials are those that each store finds by itself: its environment variables, its files, the role of the machine.
"""

import asyncio
import contextlib
import io
import re
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from clipserve.cancellation import Cancellation
from clipserve.errors import ClipserveError, InvalidRequest, VideoNotReadable
from clipserve.extras import load
from clipserve.names import spell_name
from clipserve.sources.downloads import DownloadLimits, check_size, explain_time_limit
from clipserve.sources.natural_order import order_naturally
from clipserve.sources.remote_paths import RemotePath, hide_secrets

CHUNK_BYTES = 16 * 1024 * 1024  # of one request; most videos need one
SYNC_CHUNK_BYTES = 1024 * 1024  # of stores that cannot end a request

# They make other addresses of what they read, some by templates that run code; a list may come from anybody.
REFUSED = frozenset(("reference", "generic", "dask", "data", "async_wrapper", "asyncwrapper"))
_SCHEMES = re.compile(r"(?:^|::)([a-z][a-z0-9+._-]*)(?=::|://)", re.IGNORECASE)

# What botocore says of s3://KEY:SECRET@bucket, with the secret.
_BAD_BUCKET = re.compile(r'Invalid bucket name "[^"]*[:@]')
_WHOSE_CREDENTIALS = "credentials are those that the store's own tools use: its environment variables and files"

_StoreKey: TypeAlias = tuple[str, str, str]
_open_stores: dict[_StoreKey, Future[Any]] = {}  # those that are being opened, too
_lock = threading.Lock()
MOST_STORES = 64


@dataclass(frozen=True)
class Item:
    """Something in a folder.

    Attributes:
        address: what to open it by.
        name: the last part of its path.
        is_folder: whether other items are below it.
    """

    address: RemotePath
    name: str
    is_folder: bool


class Store:
    """The store of one address, and the address's path in it.

    Args:
        end: the time, by time.monotonic(), until which to wait for an archive to open; None: without a limit.

    Raises:
        InvalidRequest: fsspec, or what it needs for this store, is not installed, or there is no such store.
        VideoNotReadable: an archive does not open, or the store has no such addresses.
        RequestCancelled: `cancellation` was cancelled.
        TimeoutError: it took too long.
    """

    def __init__(self, address: RemotePath, cancellation: Cancellation | None = None, end: float | None = None) -> None:
        self.address = address
        self._system = _open_system(address, cancellation or Cancellation(), end)
        with store_errors(f"cannot open {address.shown!r}", address.shown):  # hf:// needs hf://namespace/name/...
            self._path: str = self._system._strip_protocol(f"{address.scheme}://{address.path}")
            # Of a folder that was listed before, fsspec would go on to know the objects and sizes of that time.
            self._system.invalidate_cache(self._path)

    def exists(self) -> bool:
        """Whether there is an object or a folder of exactly this name."""
        return bool(self._system.exists(self._path))

    def is_folder(self) -> bool:
        """Whether objects are below this path."""
        if self._is_s3:
            page = self._list_page(self._prefix, keys=1)
            return bool(page.get("KeyCount"))
        return bool(self._system.isdir(self._path))

    def list(self) -> Iterator[Item]:
        """The items of the folder, in natural order. Memory holds the names of one folder."""
        listed = self._system.ls(self._path, detail=True)
        found = {str(item["name"]).rstrip("/"): item["type"] == "directory" for item in listed}
        found.pop(self._path.rstrip("/"), None)
        for path in sorted(found, key=order_naturally):
            item = self._make_item(path, is_folder=found[path])
            if item.is_folder and item.name == ".":  # `tar -cf videos.tar .` puts ./ in front of every name
                yield from Store(item.address).list()
            else:
                yield item

    def walk(self) -> Iterator[Item]:
        """Every object below the path. Of S3 page by page, in S3's order; of others folder by folder."""
        if self._is_s3:
            yield from self._walk_pages()
            return
        for item in self.list():
            if not item.is_folder:
                yield item
            elif not item.name.startswith("."):
                yield from Store(item.address).walk()

    def read(self, name: str, limits: DownloadLimits, cancellation: Cancellation, end: float) -> bytes:
        """The bytes of the object, until `end`. An object that is too large is refused before it is read.

        Raises:
            VideoTooLarge: there are more bytes than allowed.
            RequestCancelled: `cancellation` was cancelled; the transfer ends then.
            TimeoutError: it took too long.
        """
        if not self._system.async_impl:
            with self._system.open(self._path, "rb") as file:
                return _read_file(file, name, limits, cancellation, end)
        facts = self._wait(self._system._info(self._path), cancellation, end)
        if facts["type"] == "directory":
            raise IsADirectoryError("it is a folder, and not a video")
        size = int(facts["size"])
        check_size(size, name, limits)
        chunks: list[bytes] = []
        for start in range(0, size, CHUNK_BYTES):
            part = self._system._cat_file(self._path, start=start, end=min(start + CHUNK_BYTES, size))
            chunks.append(self._wait(part, cancellation, end))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def open_text(self, newline: str | None) -> IO[str]:
        """The object as UTF-8, read as it is needed."""
        return io.TextIOWrapper(self.open_binary(), encoding="utf-8-sig", newline=newline)

    def open_binary(self) -> IO[bytes]:
        """The object, read as it is needed."""
        opened: IO[bytes] = self._system.open(self._path, "rb")
        return opened

    def put(self, file: str) -> None:
        """Store a file of this machine; the object appears whole."""
        self._system.put_file(file, self._path)

    @property
    def _is_s3(self) -> bool:
        return hasattr(self._system, "call_s3")

    @property
    def _prefix(self) -> str:
        return self._path.rstrip("/") + "/"

    def _walk_pages(self) -> Iterator[Item]:
        bucket = self._prefix.partition("/")[0]
        token: str | None = None
        while True:
            page = self._list_page(self._prefix, token=token)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):
                    yield self._make_item(f"{bucket}/{found['Key']}", is_folder=False)
            token = page.get("NextContinuationToken")
            if token is None:
                return

    def _list_page(self, prefix: str, *, token: str | None = None, keys: int = 1000) -> Any:
        """A thousand keys at the most. s3fs would first list all of them: 10 million are gigabytes."""
        bucket, _, start = prefix.partition("/")
        more = {"ContinuationToken": token} if token else {}
        return self._system.call_s3("list_objects_v2", Bucket=bucket, Prefix=start, MaxKeys=keys, **more)

    def _make_item(self, path: str, *, is_folder: bool) -> Item:
        below = path.strip("/").removeprefix(self._path.strip("/")).strip("/")
        return Item(self.address.join(below), below.rpartition("/")[2], is_folder)

    def _wait(self, work: Coroutine[Any, Any, Any], cancellation: Cancellation, end: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._system.loop)
        try:
            with cancellation.calls(future.cancel):
                return future.result(max(end - time.monotonic(), 0))
        except CancelledError:
            cancellation.check()
            raise
        finally:
            future.cancel()


def read_object(address: str, limits: DownloadLimits, cancellation: Cancellation) -> bytes:
    """The bytes of one object.

    Raises:
        InvalidRequest: see `Store`.
        VideoNotReadable: the store does not give it, or takes too long; the message has no credentials.
        VideoTooLarge, RequestCancelled: see `Store.read`.
    """
    remote = RemotePath.parse(address)
    name = spell_name(remote.shown)
    with store_errors(f"cannot read {name!r}", name, limits):
        end = time.monotonic() + limits.seconds
        return Store(remote, cancellation, end).read(name, limits, cancellation, end)


@contextlib.contextmanager
def store_errors(what: str, video: str, limits: DownloadLimits | None = None) -> Iterator[None]:
    """Turn what a store raises into VideoNotReadable. Each library has errors of its own, so any other one counts."""
    try:
        yield
    except ClipserveError:
        raise
    except Exception as exc:
        reason = describe(exc)
        if isinstance(exc, TimeoutError) and limits is not None:
            reason = explain_time_limit(limits)
        # Not `from exc`: its text may hold an address with a signature.
        raise VideoNotReadable(f"{what}: {reason}", video=video) from None


def describe(exc: Exception) -> str:
    """Why a store does not do what it should, in one line without credentials."""
    if isinstance(exc, FileNotFoundError):
        return "there is no such object"
    said = hide_secrets(" ".join(str(exc).split()))
    if _BAD_BUCKET.search(said):
        return f"the name of a bucket has no : and no @, and its address no credentials; {_WHOSE_CREDENTIALS}"
    if isinstance(exc, PermissionError) or "credentials" in said.lower():
        return f"access is denied ({said}); {_WHOSE_CREDENTIALS}"
    return said or type(exc).__name__


def _open_system(address: RemotePath, cancellation: Cancellation, end: float | None) -> Any:
    """fsspec's file system for an address: one for all threads, so that they share connections and archives.

    To open an archive, fsspec reads its directory, maybe over the network, and nothing can end that. So a thread of its
    own does it, which goes on after the time limit. The next reader of the archive waits for the same thread.
    """
    place = "" if address.holder else address.path.partition("/")[0]
    key = (address.scheme, place, address.caches + address.holder)
    with _lock:
        if key not in _open_stores:
            opening = _begin_opening(address, key)
            if len(_open_stores) >= MOST_STORES:
                _open_stores.pop(next(iter(_open_stores)))
            _open_stores[key] = opening
        opening = _open_stores[key]
    awake = threading.Event()
    opening.add_done_callback(lambda _: awake.set())
    with cancellation.calls(awake.set):
        awake.wait(None if end is None else max(end - time.monotonic(), 0))
    if not opening.done():
        cancellation.check()
        raise TimeoutError
    try:
        return opening.result()
    except ImportError as exc:
        raise InvalidRequest(
            f"{address.scheme}:// needs a package that is not installed ({exc}): pip install 'clipserve[remote]' brings"
            " those of s3://, gs:// and hf://"
        ) from exc
    except ValueError as exc:
        raise InvalidRequest(
            f"no store opens {address.shown!r} ({hide_secrets(str(exc))}); there are s3://, gs://, hf://, zip:// and"
            " others that fsspec knows"
        ) from None
    except Exception as exc:  # an archive that does not open, a host that does not answer
        raise VideoNotReadable(f"cannot open {address.shown!r}: {describe(exc)}", video=address.shown) from None


def _begin_opening(address: RemotePath, key: _StoreKey) -> Future[Any]:
    fsspec = load("fsspec", "remote")
    for scheme in _SCHEMES.findall(str(address)):
        if scheme.lower() in REFUSED:
            raise InvalidRequest(f"addresses of {scheme}:// are not allowed; got {address.shown!r}")
    opening: Future[Any] = Future()

    def work() -> None:
        try:
            opening.set_result(fsspec.core.url_to_fs(str(address))[0])
        except BaseException as exc:
            with _lock:  # so that the next reader tries again
                if _open_stores.get(key) is opening:
                    del _open_stores[key]
            opening.set_exception(exc)

    # Not of an executor, whose threads the end of this process would wait for.
    threading.Thread(target=work, name="opening a store", daemon=True).start()
    return opening


def _read_file(file: IO[bytes], name: str, limits: DownloadLimits, cancellation: Cancellation, end: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := file.read(SYNC_CHUNK_BYTES):
        cancellation.check()
        if time.monotonic() > end:
            raise TimeoutError
        size += len(chunk)
        check_size(size, name, limits)
        chunks.append(chunk)
    return b"".join(chunks)
