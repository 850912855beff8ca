"""Standard output that ends the program with one sentence if it cannot be written: the disk is full, a reader left."""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


def guard_standard_output() -> None:
    """Replace sys.stdout by a `StandardOutput`, even if the program was started without one."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - open as long as the program
    if sys.stdout is None:
        # A pipe that nobody reads: writing fails, as it should, and nothing else does.
        reading, writing = os.pipe()
        os.close(reading)
        sys.stdout = os.fdopen(writing, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks
    sys.stdout = StandardOutput(sys.stdout)


class StandardOutput:
    """A text stream. A failure to write is reported on stderr and raises SystemExit(2)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._guarded():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        with self._guarded():
            self._stream.writelines(lines)

    def flush(self) -> None:
        with self._guarded():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            # Python would write the rest of the buffer at exit, and fail again.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            with suppress(OSError):  # it may be the same pipe
                sys.stderr.write(f"error: cannot write to standard output: {exc.strerror}\n")
            raise SystemExit(2) from exc
