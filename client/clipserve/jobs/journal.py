"""What a job has written about the entries of its source, line by line. Another run can continue it.

A journal is a file, see line_file.py, or parts in an object store, see line_parts.py. `ResultFile` has a line for each
video, `WindowFile` one for each window.
"""

import csv
import os
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from clipserve.errors import ClipserveError, InvalidRequest, VideoError
from clipserve.jobs.line_parts import open_lines
from clipserve.names import make_printable
from clipserve.sources.entries import Entry
from clipserve.sources.remote_paths import hide_secrets


@dataclass(frozen=True)
class Line:
    """What every line says. Raises ValueError, KeyError or TypeError: a journal has no such line.

    Attributes:
        number: the entry's position in the source, from 0.
        id: of the entry.
        error: with its `code`, if the entry failed.
    """

    number: int
    id: str
    error: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.number, int) and self.number >= 0 and isinstance(self.id, str)):
            raise ValueError(f"row is a position from 0 on, and id a text; got {self.number!r}, {self.id!r}")
        if self.error is not None and not isinstance(self.error["code"], str):
            raise ValueError(f"the code of an error is a text, got {self.error['code']!r}")

    @property
    def is_kept(self) -> bool:
        """Whether the line stays when the job is started again: results, and failures that are about the video itself.

        For other failures another run may succeed: where the server failed, or where a file was missing.
        """
        return self.error is None or self.error["code"] in FINAL_CODES


# What a line raises that no job wrote.
UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError, csv.Error)

AnyLine = TypeVar("AnyLine", bound=Line)


class Journal(ABC, Generic[AnyLine]):
    """Lines by the number of their entry in the source.

    Opening it removes an incomplete last line and the failures that another run may turn into results. Four bytes per
    entry stay in memory.

    Attributes:
        name: path or address, without credentials.
        videos: how many entries have a line.
        failures: how many of them failed.

    Raises:
        InvalidRequest: another job writes to it, it was started with other settings, or no job wrote it.
    """

    ABOUT: ClassVar[str]  # what messages call an entry
    RESULTS: ClassVar[str]  # and what it is written for
    header: str | None = None  # the first line

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.name = hide_secrets(os.fspath(path))
        self.videos = 0
        self.failures = 0
        # By number: 0 for no line, else a checksum of the id, which shows whether the video is the same.
        self._checksums = array("I")
        self._lines = open_lines(path, settings)
        try:
            begun = self._read()
            self._lines.begin()
            if self.header is not None and not begun:
                self._lines.append(self.header)
        except BaseException:
            self._lines.close()
            raise

    @property
    @abstractmethod
    def results(self) -> int:
        """How many of `RESULTS` there are."""

    def has(self, number: int, id: str) -> bool:
        """Whether entry `number` has a line. Raises InvalidRequest if that is about a video with another id."""
        if not self._has_line(number):
            return False
        if self._checksums[number] != make_checksum(id):
            raise InvalidRequest(
                f"{self.ABOUT} {number} of {self.name!r} is about another video than {id!r}: the source has changed"
                " since the job began. Choose another --out, or restore the source."
            )
        return True

    def select_missing(self, entries: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Entry]]:
        """The numbered entries that still need work.

        Since the first run the source may only have grown at its end.

        Raises:
            InvalidRequest: the source is not the one that the journal was started with.
        """
        known, found = self.videos, 0
        for number, entry in entries:
            found += self.has(number, entry.spelt_id)
            if not self.is_done(number, entry):
                yield number, entry
        if found < known:
            raise InvalidRequest(
                f"{self.name!r} has {self.RESULTS} of videos that are not in the source any more: choose another --out"
            )

    def is_done(self, number: int, entry: Entry) -> bool:
        """Whether an entry has all of its lines."""
        return self._has_line(number)

    def close(self) -> None:
        """Release the journal for other jobs."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _read_line(self, line: bytes) -> AnyLine | None:
        """What a line says; None for one about no entry. Raises one of `UNREADABLE`."""

    def _has_line(self, number: int) -> bool:
        return number < len(self._checksums) and self._checksums[number] != 0

    def _record(self, line: AnyLine) -> None:
        """Count a line that is there now. Raises InvalidRequest where no job would have written it."""
        number = line.number
        if number >= len(self._checksums):
            self._checksums.frombytes(bytes(self._checksums.itemsize * (number + 1 - len(self._checksums))))
        if not self._has_line(number):
            self._checksums[number] = make_checksum(line.id)
            self.videos += 1
        self.failures += line.error is not None

    def _read(self) -> bool:
        """Record the lines, and remove those to try again. Returns whether there are any."""
        begun = retry = False
        for text in self._lines.read():
            begun = True
            line = self._parse(text)
            if line is None:
                continue
            if line.is_kept:
                self._record(line)
            else:
                retry = True
        if retry:
            self._lines.keep(self._is_kept)
        return begun

    def _is_kept(self, text: bytes) -> bool:
        line = self._parse(text)
        return line is None or line.is_kept

    def _parse(self, text: bytes) -> AnyLine | None:
        try:
            return self._read_line(text)
        except UNREADABLE:
            raise InvalidRequest(
                f"{self.name!r} has a line that no job wrote: {text[:80]!r}. Choose another --out."
            ) from None


def _list_codes(kind: type[ClipserveError]) -> set[str]:
    return {kind.code}.union(*map(_list_codes, kind.__subclasses__()))


FINAL_CODES = _list_codes(VideoError)


def make_checksum(id: str) -> int:
    """A number that shows whether two ids are the same, as CSV or JSON spells them; never 0."""
    return zlib.crc32(make_printable(id).encode(errors="surrogatepass")) or 1
