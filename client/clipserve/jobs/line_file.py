"""A file that grows by whole lines. Another run can continue it, however the last one ended.

`results.jsonl` holds the lines. `results.jsonl.job` beside it holds the job's settings, and lines for which the format
of the results has no room; a job locks it while it writes. Where `results.jsonl` is a link, this is about its target.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest
from clipserve.tables.formats import write_json


class LineFile:
    """Lines of bytes, appended one at a time.

    Attributes:
        notes: the lines beside the settings.

    Raises:
        InvalidRequest: another job writes to the file, the file was started with other settings, or no job wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self._name = os.fspath(path)
        self.path = Path(os.path.realpath(path))  # two jobs may name one file differently, through links
        self.notes: list[str] = []
        self._file: IO[bytes] | None = None
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe or /dev/full would never end
            raise InvalidRequest(
                f"{self._name!r} is not a regular file, and a job must be able to read its rows: choose another --out"
            )
        self._lock = _lock(self.path, self._name)
        try:
            self._check_settings(settings)
        except BaseException:
            self._lock.close()
            raise

    def read(self) -> Iterator[bytes]:
        """The complete lines. In the end an incomplete last line is removed."""
        if not self.path.exists():
            return
        complete_bytes = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                complete_bytes += len(line)
                yield line
        if complete_bytes < self.path.stat().st_size:
            os.truncate(self.path, complete_bytes)

    def keep(self, wanted: Callable[[bytes], bool]) -> None:
        """Replace the file, in one step, by one with the wanted lines alone."""
        with self.path.open("rb") as lines, open_atomically(self.path, "wb") as file:
            file.writelines(line for line in lines if wanted(line))

    def begin(self) -> None:
        """Open the file for `append`; it exists from now on."""
        # Unbuffered: a line that a full disk refuses must not be written later, when the file is closed.
        self._file = self.path.open("ab", buffering=0)

    def append(self, line: str) -> None:
        """Write a line. Once this returns, it survives the end of this process.

        Raises:
            OSError: the line cannot be written. The file may hold a part of it; the next reading removes that part.
        """
        assert self._file is not None
        left = memoryview(line.encode() + b"\n")
        while left:
            left = left[self._file.write(left) :]

    def note(self, line: str) -> None:
        """Write a line beside the settings. Raises OSError."""
        self._lock.write(line + "\n")
        self._lock.flush()

    def close(self) -> None:
        """Release the file for other jobs."""
        if self._file is not None:
            with suppress(OSError):
                os.fsync(self._file.fileno())
            self._file.close()
        self._lock.close()

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        self._lock.seek(0)
        text = self._lock.read()
        if self.path.exists() and self.path.stat().st_size > 0:
            with explain_settings(
                f"{self._name!r} is not empty, and {self._lock.name!r} does not show that a job wrote it"
            ):
                found, end = json.JSONDecoder().raw_decode(text)
                before = dict(found)
            check_settings(self._name, before, settings)
            *notes, incomplete = text[end:].split("\n")
            self.notes = list(filter(None, notes))
            self._lock.truncate(len(text.encode()) - len(incomplete.encode()))
        else:
            self._lock.truncate(0)
            self._lock.write(write_json(dict(settings), indent=2) + "\n")
            self._lock.flush()


@contextmanager
def explain_settings(wrong: str) -> Iterator[None]:
    """Turn what JSON raises that no job wrote into InvalidRequest. wrong: says what is wrong then."""
    try:
        yield
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(f"{wrong}: choose another --out") from None


def check_settings(name: str, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InvalidRequest if the lines were started with other settings.

    Args:
        name: of the file, for the message.
    """
    if differences := describe_differences(before, settings):
        raise InvalidRequest(
            f"{name!r} was started with {differences}: continue with the same settings, or choose another --out"
        )


def describe_differences(before: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """The settings that differ, such as "model 'x3d_s', now 'x3d_m'"; empty where none does."""
    changed = [name for name in sorted({*before, *settings}) if before.get(name) != settings.get(name)]
    return ", ".join(f"{name} {before.get(name)!r}, now {settings.get(name)!r}" for name in changed)


def _lock(path: Path, shown: str) -> IO[str]:
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
        raise InvalidRequest(f"another job is writing to {shown!r}: wait for it, or choose another --out") from exc
    return file
