"""A file of results that grows, one line a row, and can be gone on with after anything that happened to its writer.

`results.jsonl` holds the rows; `results.jsonl.job` beside it says what was asked, and is locked while a job writes.
"""

import json
import os
import zlib
from array import array
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from clipserve.atomic_files import open_atomically
from clipserve.errors import ClipserveError, InvalidRequest, VideoError
from clipserve.results import Row
from clipserve.tables.lines import write_json, write_line


class ResultFile:
    """Rows by their number in the source, each written once.

    Opening it cuts off a torn last line, and takes out the failures that are not about a video (`is_final`), so that
    they are tried again. Four bytes a row are kept in memory.

    Raises:
        InvalidRequest: another job writes to it; it was begun with other settings; it is no file of results.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.failures = 0
        self.rows = 0
        # By row number: 0, or a checksum of the id, which tells whether it still is the same video.
        self._done = array("I")
        if self.path.exists() and not self.path.is_file():  # a pipe, /dev/full: reading it has no end
            raise InvalidRequest(
                f"{str(self.path)!r} is no regular file, and rows are read again: choose another --out"
            )
        self._lock = _lock(self.path)
        try:
            self._check_settings(settings)
            self._read()
            # Unbuffered: what a full disk refuses must not be written later, when the file is closed.
            self._file = self.path.open("ab", buffering=0)
        except BaseException:
            self._lock.close()
            raise

    def has(self, number: int, id: str) -> bool:
        """Whether the row is there, of an entry by its spelt id. Raises InvalidRequest if another video's row is."""
        if number >= len(self._done) or not self._done[number]:
            return False
        if self._done[number] != _checksum(id):
            raise InvalidRequest(
                f"row {number} of {str(self.path)!r} is about another video than {id!r}: the source has changed since"
                " the job began. Begin another --out, or bring the source back to what it was."
            )
        return True

    def append(self, number: int, row: Row) -> None:
        """Write a row; once this returns it survives the end of this process.

        Raises:
            OSError: it cannot be written. Part of it may be in the file, and is cut off by the next one who opens it.
        """
        line = memoryview(write_line(row, number).encode() + b"\n")
        while line:
            line = line[self._file.write(line) :]
        self._note(number, row.id)
        self.failures += row.error is not None

    def close(self) -> None:
        """Let others write."""
        with suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        self._lock.seek(0)
        text = self._lock.read()
        begun = self.path.exists() and self.path.stat().st_size > 0
        try:
            before = json.loads(text) if begun else {}
        except ValueError:
            raise InvalidRequest(
                f"{str(self.path)!r} holds something, and {self._lock.name!r} does not say that a job wrote it: choose"
                " another --out"
            ) from None
        changed = {name for name in {*before, *settings} if before.get(name) != settings.get(name)} if begun else set()
        if changed:
            differences = ", ".join(
                f"{name} {before.get(name)!r}, now {settings.get(name)!r}" for name in sorted(changed)
            )
            raise InvalidRequest(
                f"{str(self.path)!r} was begun with {differences}: go on with the same settings, or choose another"
                " --out"
            )
        if not begun:
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.write(write_json(dict(settings), indent=2) + "\n")
            self._lock.flush()

    def _read(self) -> None:
        """Note the rows that are there, and bring the file into order."""
        if not self.path.exists():
            return
        whole_bytes, again = 0, False
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole_bytes += len(line)
                record = self._parse(line)
                if is_final(record):
                    self._note(record["row"], record["id"])
                    self.failures += "error" in record
                else:
                    again = True
        if whole_bytes < self.path.stat().st_size:
            os.truncate(self.path, whole_bytes)
        if again:
            self._take_out()

    def _take_out(self) -> None:
        """Write the file anew without what is to be tried again; it changes at once or not at all."""
        with self.path.open("rb") as lines, open_atomically(self.path, "wb") as file:
            file.writelines(line for line in lines if is_final(self._parse(line)))

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record["row"], int) and record["row"] >= 0 and isinstance(record["id"], str):
                return dict(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise InvalidRequest(f"{str(self.path)!r} has a line that no job wrote: {line[:80]!r}. Choose another --out.")

    def _note(self, number: int, id: str) -> None:
        if number >= len(self._done):
            self._done.frombytes(bytes(self._done.itemsize * (number + 1 - len(self._done))))
        if self._done[number]:
            raise InvalidRequest(f"row {number} is in {str(self.path)!r} twice: choose another --out")
        self._done[number] = _checksum(id)
        self.rows += 1


def is_final(record: Mapping[str, Any]) -> bool:
    """Whether a row stays when the job is started again: answers, and failures that are about the video itself.

    Others may go better: the server was at fault, or a file was not there that now is.
    """
    return "error" not in record or record["error"]["code"] in _FINAL_CODES


def _list_codes(kind: type[ClipserveError]) -> set[str]:
    return {kind.code}.union(*map(_list_codes, kind.__subclasses__()))


_FINAL_CODES = _list_codes(VideoError)


def _checksum(id: str) -> int:
    return zlib.crc32(id.encode(errors="surrogatepass")) or 1  # 0 stands for a row that is not there


def _lock(path: Path) -> IO[str]:
    """Open and lock the file beside `path`; the lock ends with this process, however it ends."""
    import fcntl

    name = path.with_name(path.name + ".job")
    try:
        file = name.open("a+", encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(
            f"cannot write {str(name)!r}, which is kept beside the results: {exc.strerror}. The folder must be there,"
            " and writable."
        ) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise InvalidRequest(f"another job is writing to {str(path)!r}: wait for it, or choose another --out") from exc
    return file
