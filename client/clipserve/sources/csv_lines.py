"""The lines of a CSV file on their way to Python's reader, which does not say where a fault begins."""

import csv
from collections.abc import Iterator

COLUMNS = ("id", "path", "label")  # of these only `path` must be there; others are left alone


class CsvLines:
    """Hands lines on, and keeps those of the record that is being read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._record: list[str] = []
        self._first = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._record.append(line)
        return line

    def begin_record(self) -> None:
        """What comes next is another record."""
        self._first += len(self._record)
        self._record.clear()

    def describe(self, exc: csv.Error) -> str:
        """Where and what the fault is that the reader found in this record."""
        last = self._first + len(self._record) - 1
        if (opened := self._find_open_quote()) is not None:
            return (
                f"line {opened}: a quote opens a field here, and up to line {last} none closes it ahead of a comma or"
                f" the line's end ({exc}). Close it; a quote that is part of a value is written twice."
            )
        return f"line {last}: {exc}. A list has the columns {', '.join(COLUMNS)}; leave out one as long as that."

    def _find_open_quote(self) -> int | None:
        """The line where the field begins whose quotes are not what CSV wants; None if there is none."""
        opened = self._first
        fresh, quoted, closed = True, False, False
        for number, line in enumerate(self._record, self._first):
            for character in line:
                if quoted:
                    closed = character == '"'
                    quoted = not closed
                elif closed and character == '"':  # two of them: one that is part of the value
                    quoted, closed = True, False
                elif closed and character not in ",\r\n":
                    return opened
                elif fresh and character == '"':
                    quoted, fresh, opened = True, False, number
                else:
                    fresh, closed = character in ",\r\n" or (fresh and character == " "), False
        return opened if quoted else None
