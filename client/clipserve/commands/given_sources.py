"""The sources on a command line, `-` for standard input among them."""

import io
import sys
from collections.abc import Sequence

import typer

from clipserve.commands.output import tell
from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.sources.entries import Entries, Entry
from clipserve.sources.folders import Skipped
from clipserve.sources.source import read_entries
from clipserve.sources.videos import read_video

STANDARD_INPUT = "-"
NAME = "<stdin>"


class GivenSources:
    """Reads the sources, and counts what is in them.

    Raises:
        typer.BadParameter: standard input is given twice, or is a terminal.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._found = 0
        self._skipped = Skipped()
        inputs = sources.count(STANDARD_INPUT)
        if inputs > 1:
            raise typer.BadParameter("standard input has one video: give - only once", param_hint="SOURCES")
        if inputs and (sys.stdin is None or sys.stdin.isatty()):
            what = "closed" if sys.stdin is None else "a terminal"
            raise typer.BadParameter(
                f"- reads a video from standard input, which is {what}: end the command with < clip.mp4",
                param_hint="SOURCES",
            )

    def check_repeatable(self) -> None:
        """Raise BadParameter if a job could not go on with them: standard input can be read only once."""
        if STANDARD_INPUT in self._sources:
            raise typer.BadParameter(
                "standard input cannot be read again when the job continues: give a file, or leave out --out",
                param_hint="--out",
            )

    def read(self) -> Entries:
        """The videos; may be called once."""
        for source in self._sources:
            entries = iter((_read_input(),)) if source == STANDARD_INPUT else read_entries(source, self._skipped)
            for entry in entries:
                self._found += 1
                yield entry

    def finish(self) -> None:
        """Report on stderr what scans of folders left out. Raises InvalidRequest if there was no video at all."""
        if self._skipped:
            tell(f"left out: {self._skipped}")
        if not self._found:
            names = " and ".join(map(repr, self._sources[:3])) + (" ..." if len(self._sources) > 3 else "")
            raise InvalidRequest(
                f"no video was found in {names}: give video files, or a folder, a pattern or a list that has some"
            )


class _Input(io.BytesIO):
    name = NAME


def _read_input() -> Entry:
    """Read it in this thread: a worker thread that waits for standard input would outlive Ctrl-C."""
    try:
        return Entry(NAME, _Input(read_video(sys.stdin.buffer).content))
    except ClipserveError as error:
        return Entry(NAME, error)
