"""A file of results that grows by one line per row. Another run can continue it, however the last one ended.

`results.jsonl` holds the rows. `results.jsonl.job` beside it holds the job's settings; a job locks it while it writes.
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
from clipserve.tables.formats import write_json, write_line


class ResultFile:
    """Rows by their number in the source. Each row is written once.

    Opening the file removes an incomplete last line and the failures that another run may turn into predictions
    (see `is_final`). Four bytes per row stay in memory.

    Raises:
        InvalidRequest: another job writes to the file, the file was begun with other settings, or no job wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.failures = 0
        self.rows = 0
        # By row number: 0 for a missing row, else a checksum of the id, which shows whether the video is the same.
        self._done = array("I")
        if self.path.exists() and not self.path.is_file():  # reading a pipe or /dev/full would never end
            raise InvalidRequest(
                f"{str(self.path)!r} is no regular file, and a job must read its rows again: choose another --out"
            )
        self._lock = _lock(self.path)
        try:
            self._check_settings(settings)
            self._read()
            # Unbuffered: a line that a full disk refuses must not be written later, when the file is closed.
            self._file = self.path.open("ab", buffering=0)
        except BaseException:
            self._lock.close()
            raise

    def has(self, number: int, id: str) -> bool:
        """Whether the file has row `number`. Raises InvalidRequest if that row belongs to a video with another id."""
        if number >= len(self._done) or not self._done[number]:
            return False
        if self._done[number] != _checksum(id):
            raise InvalidRequest(
                f"row {number} of {str(self.path)!r} is about another video than {id!r}: the source has changed since"
                " the job began. Choose another --out, or restore the source."
            )
        return True

    def append(self, number: int, row: Row) -> None:
        """Write a row. Once this returns, the row survives the end of this process.

        Raises:
            OSError: the row cannot be written. The file may hold a part of it; the next opening removes that part.
        """
        line = memoryview(write_line(row, number).encode() + b"\n")
        while line:
            line = line[self._file.write(line) :]
        self._record(number, row.id)
        self.failures += row.error is not None

    def close(self) -> None:
        """Release the file for other jobs."""
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
                f"{str(self.path)!r} is not empty, and {self._lock.name!r} does not show that a job wrote it: choose"
                " another --out"
            ) from None
        changed = {name for name in {*before, *settings} if before.get(name) != settings.get(name)} if begun else set()
        if changed:
            differences = ", ".join(
                f"{name} {before.get(name)!r}, now {settings.get(name)!r}" for name in sorted(changed)
            )
            raise InvalidRequest(
                f"{str(self.path)!r} was begun with {differences}: continue with the same settings, or choose another"
                " --out"
            )
        if not begun:
            self._lock.seek(0)
            self._lock.truncate()
            self._lock.write(write_json(dict(settings), indent=2) + "\n")
            self._lock.flush()

    def _read(self) -> None:
        """Record the rows of the file; remove an incomplete last line and the rows to try again."""
        if not self.path.exists():
            return
        complete_bytes, retry = 0, False
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                complete_bytes += len(line)
                record = self._parse(line)
                if is_final(record):
                    self._record(record["row"], record["id"])
                    self.failures += "error" in record
                else:
                    retry = True
        if complete_bytes < self.path.stat().st_size:
            os.truncate(self.path, complete_bytes)
        if retry:
            self._remove_retryable()

    def _remove_retryable(self) -> None:
        """Replace the file, in one step, by one without the rows that are to be tried again."""
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

    def _record(self, number: int, id: str) -> None:
        if number >= len(self._done):
            self._done.frombytes(bytes(self._done.itemsize * (number + 1 - len(self._done))))
        if self._done[number]:
            raise InvalidRequest(f"row {number} is in {str(self.path)!r} twice: choose another --out")
        self._done[number] = _checksum(id)
        self.rows += 1


def is_final(record: Mapping[str, Any]) -> bool:
    """Whether a row stays when the job is started again: predictions, and failures that are about the video itself.

    For other failures another run may succeed: where the server failed, or where a file was missing.
    """
    return "error" not in record or record["error"]["code"] in FINAL_CODES


def _list_codes(kind: type[ClipserveError]) -> set[str]:
    return {kind.code}.union(*map(_list_codes, kind.__subclasses__()))


FINAL_CODES = _list_codes(VideoError)


def _checksum(id: str) -> int:
    return zlib.crc32(id.encode(errors="surrogatepass")) or 1  # 0 means that the row is missing


def _lock(path: Path) -> IO[str]:
    """Open and lock the settings file beside `path`. The system releases the lock when this process ends."""
    import fcntl

    name = path.with_name(path.name + ".job")
    try:
        file = name.open("a+", encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(
            f"cannot write {str(name)!r}, which holds the job's settings beside the results: {exc.strerror}."
            " The folder must exist and be writable."
        ) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        file.close()
        raise InvalidRequest(f"another job is writing to {str(path)!r}: wait for it, or choose another --out") from exc
    return file
