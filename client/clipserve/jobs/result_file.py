"""A file of results that grows by one line per row. Another run can continue it, however the last one ended.

With the address of a folder in an object store the results are parts there, see line_parts.py.
"""

import json
import os
import zlib
from array import array
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from clipserve.errors import ClipserveError, InvalidRequest, VideoError
from clipserve.jobs.line_parts import open_lines
from clipserve.results import Row
from clipserve.sources.remote_paths import hide_secrets
from clipserve.tables.formats import write_line


class ResultFile:
    """Rows by their number in the source. Each row is written once.

    Opening the file removes an incomplete last line and the failures that another run may turn into predictions
    (see `is_final`). Four bytes per row stay in memory.

    Raises:
        InvalidRequest: another job writes to the file, the file was begun with other settings, or no job wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.name = hide_secrets(os.fspath(path))
        self.failures = 0
        self.rows = 0
        # By row number: 0 for a missing row, else a checksum of the id, which shows whether the video is the same.
        self._done = array("I")
        self._lines = open_lines(path, settings)
        try:
            self._read()
            self._lines.begin()
        except BaseException:
            self._lines.close()
            raise

    def has(self, number: int, id: str) -> bool:
        """Whether the file has row `number`. Raises InvalidRequest if that row belongs to a video with another id."""
        if number >= len(self._done) or not self._done[number]:
            return False
        if self._done[number] != make_checksum(id):
            raise InvalidRequest(
                f"row {number} of {self.name!r} is about another video than {id!r}: the source has changed since"
                " the job began. Choose another --out, or restore the source."
            )
        return True

    def append(self, number: int, row: Row) -> None:
        """Write a row. Once this returns, the row survives the end of this process.

        Raises:
            OSError: the row cannot be written. The file may hold a part of it; the next opening removes that part.
        """
        self._lines.append(write_line(row, number))
        self._record(number, row.id)
        self.failures += row.error is not None

    def close(self) -> None:
        """Release the file for other jobs."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        """Record the rows of the file; remove an incomplete last line and the rows to try again."""
        retry = False
        for line in self._lines.read():
            record = self._parse(line)
            if is_final(record):
                self._record(record["row"], record["id"])
                self.failures += "error" in record
            else:
                retry = True
        if retry:
            self._lines.keep(lambda line: is_final(self._parse(line)))

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record["row"], int) and record["row"] >= 0 and isinstance(record["id"], str):
                return dict(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise InvalidRequest(f"{self.name!r} has a line that no job wrote: {line[:80]!r}. Choose another --out.")

    def _record(self, number: int, id: str) -> None:
        if number >= len(self._done):
            self._done.frombytes(bytes(self._done.itemsize * (number + 1 - len(self._done))))
        if self._done[number]:
            raise InvalidRequest(f"row {number} is in {self.name!r} twice: choose another --out")
        self._done[number] = make_checksum(id)
        self.rows += 1


def is_final(record: Mapping[str, Any]) -> bool:
    """Whether a row stays when the job is started again: predictions, and failures that are about the video itself.

    For other failures another run may succeed: where the server failed, or where a file was missing.
    """
    return "error" not in record or record["error"]["code"] in FINAL_CODES


def _list_codes(kind: type[ClipserveError]) -> set[str]:
    return {kind.code}.union(*map(_list_codes, kind.__subclasses__()))


FINAL_CODES = _list_codes(VideoError)


def make_checksum(id: str) -> int:
    """A number that shows whether two ids are the same; never 0."""
    return zlib.crc32(id.encode(errors="surrogatepass")) or 1
