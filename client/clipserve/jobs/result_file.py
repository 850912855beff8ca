"""A file of results that grows by one line per row: the journal of `clipserve classify --out`."""

import json

from clipserve.errors import InvalidRequest
from clipserve.jobs.journal import Journal, Line
from clipserve.results import Row
from clipserve.tables.formats import write_line


class ResultFile(Journal[Line]):
    """Rows by their number in the source, as JSON. Each row is written once."""

    ABOUT = "row"
    RESULTS = "rows"

    @property
    def results(self) -> int:
        """How many rows there are, failures included."""
        return self.videos

    def append(self, number: int, row: Row) -> None:
        """Write a row. Once this returns, a row in a file survives the end of this process.

        Raises:
            OSError: the row cannot be written. The file may hold a part of it; the next opening removes that part.
        """
        self._lines.append(write_line(row, number))
        self._record(Line(number, row.id, {"code": row.error.code} if row.error else None))

    def _read_line(self, line: bytes) -> Line:
        record = json.loads(line)
        return Line(record["row"], record["id"], record.get("error"))

    def _record(self, line: Line) -> None:
        if self._has_line(line.number):
            raise InvalidRequest(f"row {line.number} is in {self.name!r} twice: choose another --out")
        super()._record(line)
