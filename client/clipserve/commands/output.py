"""What commands print: messages on stderr, and the rows of `clipserve classify`, for people or as JSON for programs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipserve.atomic_files import can_write
from clipserve.errors import ClipserveError
from clipserve.names import make_printable
from clipserve.results import Row
from clipserve.sources.remote_paths import is_remote
from clipserve.tables.display import TRUNCATED
from clipserve.tables.formats import describe_error, describe_row, write_json


class Output(Protocol):
    """Shows rows as they come."""

    def show(self, row: Row) -> None: ...

    def show_end(self, error: ClipserveError) -> None:
        """Show the error that ended the run."""

    def __enter__(self) -> "Output": ...

    def __exit__(self, *_: object) -> None: ...


class JsonLines:
    """One JSON object per line on stdout; messages for people on stderr."""

    def show(self, row: Row) -> None:
        line = {"file": row.video} | describe_row(row)  # version 0.3 drops `file`
        if row.error is None:
            print_json(line)
        else:
            print_json(line | {"model": row.error.model})
            print_error(row.error)

    def show_end(self, error: ClipserveError) -> None:
        print_json({"file": None, "video": None, "model": error.model, "error": describe_error(error)})
        print_error(error)

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *_: object) -> None: ...


class TableAtEnd:
    """A table of all rows at the end, and then the messages."""

    def __init__(self, model: str) -> None:
        self._table = Table("file", model, "ms")
        self._table.columns[0].overflow = "fold"
        self._table.columns[2].justify = "right"
        self._errors: list[ClipserveError] = []
        self._truncated = 0

    def show(self, row: Row) -> None:
        # Text: names and labels may hold square brackets, which str would turn into markup.
        if row.prediction is not None:
            top = row.prediction.top
            labels = Text(", ").join(
                Text(make_printable(str(scored)), style="bold" if scored is top else "") for scored in row.prediction
            )
            if row.prediction.truncated:
                labels.append(TRUNCATED, style="yellow")
                self._truncated += 1
            self._table.add_row(Text(make_printable(row.video)), labels, f"{row.milliseconds:.0f}")
        if row.error is not None:
            self._table.add_row(Text(make_printable(row.video)), Text(f"failed: {row.error.code}", style="red"), "")
            self._errors.append(row.error)

    def show_end(self, error: ClipserveError) -> None:
        self._errors.append(error)

    def __enter__(self) -> "TableAtEnd":
        return self

    def __exit__(self, *_: object) -> None:
        if self._table.rows:
            Console().print(self._table)
        if self._truncated:
            tell("truncated: bytes of the video are missing or damaged; the labels come from the frames that are left")
        for error in self._errors:
            print_error(error)


def check_folders(files: Mapping[str, str | None]) -> None:
    """Raise typer.BadParameter where the folder of an output is missing or read-only, or a folder has its name, before
    the work of hours. Stores need none.

    Args:
        files: by the name of their option.
    """
    for option, path in files.items():
        if not path or path == "-" or is_remote(path):
            continue
        if Path(path).is_dir():
            raise typer.BadParameter(f"{path!r} is a folder: give a file", param_hint=option)
        if not Path(path).parent.is_dir():
            raise typer.BadParameter(f"there is no folder {str(Path(path).parent)!r}", param_hint=option)
        if not can_write(path):
            raise typer.BadParameter(f"{path!r} cannot be written: choose another place", param_hint=option)


def print_json(record: dict[str, Any]) -> None:
    """Print an object as one line of JSON."""
    # A terminal of another encoding cannot show all letters; JSON can escape them in ASCII.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    sys.stdout.write(write_json(record, ascii_only=ascii_only) + "\n")
    sys.stdout.flush()  # the next program in the pipe should not wait for a full buffer


def print_error(error: ClipserveError | OSError) -> None:
    """Print one line on stderr. An OSError is about a file that cannot be written."""
    if isinstance(error, OSError):
        tell(f"error: cannot write{f' {error.filename!r}' if error.filename else ''}: {error.strerror or error}")
    else:
        tell(f"error: {error}")


def tell(text: str) -> None:
    """Print one line on stderr, whatever is in the names that it mentions."""
    sys.stderr.write(make_printable(text) + "\n")
