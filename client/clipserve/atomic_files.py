"""Files, and objects in stores, that are written whole or not at all, whatever ends the writer."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from clipserve.sources.remote_paths import RemotePath, is_remote
from clipserve.sources.stores import Store, describe


@contextmanager
def open_atomically(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing ("w" as UTF-8, or "wb"), which gets its name when the block ends without an error.

    Until then it has another name in the same folder, such as x.1f3a9c0e.part for x.csv, and an older file stays as it
    is. Anything but a regular file, such as a named pipe, is written directly, and so is a descriptor, such as
    /dev/stdout. An object in a store, such as s3://bucket/x.csv, is written to a temporary file of this machine first.

    Raises:
        OSError: the file cannot be written; names `path`.
        InvalidRequest: fsspec, or what it needs for the store, is not installed.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
    if is_remote(path):
        with _open_remote(str(path), mode, text) as file:
            yield file
        return
    try:
        if _is_written_directly(Path(path)):
            with Path(path).open(mode, **text) as file:
                yield file
        else:
            target = Path(os.path.realpath(path))  # a link stays, and its target is replaced
            # Short enough for any file system, however long the file's own name is.
            partial = target.with_name(f"{target.stem[:20]}.{secrets.token_hex(4)}.part")
            with _removed_on_error(partial), partial.open(mode.replace("w", "x"), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _replace(target, partial)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror or str(exc), os.fspath(path)) from exc


def can_write(path: str | os.PathLike[str]) -> bool:
    """Whether `open_atomically` may create what it writes to, as far as that is known before. path: of this machine."""
    place = Path(path)
    return os.access(place if _is_written_directly(place) else Path(os.path.realpath(place)).parent, os.W_OK)


def save_text(text: str, path: str | os.PathLike[str] | None) -> str:
    """Write the text with `open_atomically`, if there is a path. Returns the text."""
    if path is not None:
        with open_atomically(path) as file:
            file.write(text)
    return text


@contextmanager
def _open_remote(address: str, mode: str, text: dict[str, Any]) -> Iterator[IO[Any]]:
    remote = RemotePath.parse(address)
    store = Store(remote)
    # Stores cannot write at an earlier position, as a .npy file needs, and some would keep half of an object.
    with TemporaryDirectory(prefix="clipserve-") as folder:
        partial = Path(folder) / "object"
        with partial.open(mode, **text) as file:
            yield file
        try:
            store.put(str(partial))
        except Exception as exc:  # each store has errors of its own
            raise OSError(getattr(exc, "errno", None) or errno.EIO, describe(exc), remote.shown) from None


def _is_written_directly(path: Path) -> bool:
    """Whether there is something by this name that a file must not replace."""
    while True:
        folder = os.path.realpath(path.parent)
        # The descriptors of a process, as behind /dev/stdout. One may lead to a regular file, and whoever opened it
        # waits for what is written to that file.
        if folder == "/dev/fd" or folder.startswith("/proc/"):
            return True
        if not (path.is_symlink() and path.exists()):  # a link in a circle does not exist
            return path.exists() and not path.is_file()
        path = Path(folder, path.readlink())


def _replace(target: Path, partial: Path) -> None:
    try:
        partial.replace(target)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        # A mount of its own, as of `docker run -v report.json:/report.json`, can only be written in place.
        shutil.copyfile(partial, target)
        partial.unlink()


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
