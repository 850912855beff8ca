"""Files that are written whole or not at all, whatever ends the writer."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def open_atomically(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing ("w" as UTF-8, or "wb"), which gets its name when the block ends without an error.

    Until then it has another name in the same folder, such as x.1f3a9c0e.part for x.csv, and an older file stays as it
    is. Anything but a regular file, such as /dev/stdout or a named pipe, is written directly.

    Raises:
        OSError: the file cannot be written; names `path`.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
    try:
        if _is_device(Path(path)):
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
                partial.replace(target)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror or str(exc), os.fspath(path)) from exc


def _is_device(path: Path) -> bool:
    """Whether there is something by this name that a file cannot replace."""
    return str(path).startswith(("/dev/", "/proc/")) or (path.exists() and not path.is_file())


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
