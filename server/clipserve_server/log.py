"""What Triton and all that it starts say, in one file."""

import os
import re
import tempfile
from pathlib import Path

from clipserve_server.errors import ModelLoadError, ServerStartError

# Names the file to the decode step, whose errors about a dead worker name it in turn.
LOG_VARIABLE = "CLIPSERVE_LOG"
# The lines in which Triton 2.51 says why it ends, the most telling first.
_MODEL_FAILURES = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)"),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+)"),
    re.compile(r"load failed for model '(?P<model>[^']+)': (?P<reason>.+)"),
)
# What the loader of glibc says of a program that it cannot start.
_NOT_LOADED = re.compile(
    r"^\S+: (?P<reason>error while loading shared libraries: .+|symbol lookup error: .+|\S+: version `.+' not found.*)",
    re.MULTILINE,
)
_LAST_WORDS = re.compile(r"^error: (?P<reason>.+)", re.MULTILINE)
_LAST_LINES = 3


class TritonLog:
    """The log of one start.

    path: the file to append to, which stays; None: a file of its own among the temporary ones, which stays where the
    server did not end well. Raises ServerStartError where it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._is_ours = path is None
        try:
            if path is None:
                descriptor, name = tempfile.mkstemp(prefix="clipserve-", suffix=".log")
                os.close(descriptor)
                path = Path(name)
            self.path = path.absolute()
            with self.path.open("ab") as file:
                self._begin = file.tell() if file.seekable() else 0
        except OSError as error:
            place = path or tempfile.gettempdir()
            raise ServerStartError(f"the log {place} cannot be written: {error.strerror}") from error

    def text(self) -> str:
        """What was said since this start. Empty where the log is no plain file."""
        if not self.path.is_file():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def explain(self, what_happened: str) -> ServerStartError:
        """The error behind a server that does not come up or is gone: its own words, or else what happened."""
        text = self.text()
        for pattern in _MODEL_FAILURES:
            if failure := pattern.search(text):
                # A Python model's traceback follows, its line ends spelled out.
                reason = failure["reason"].partition("\\n")[0].strip(' "')
                return ModelLoadError(self.naming(f"{failure['model']} does not load: {reason}"))
        if reason := self.unloadable():
            return ServerStartError(self.naming(f"a process of Triton does not start: {reason}"))
        last = self.last_words() or " ".join(text.split("\n")[-_LAST_LINES:]).strip() or "without a word"
        return ServerStartError(self.naming(f"{what_happened}: {last}"))

    def last_words(self) -> str:
        """The error that Triton named as it ended; empty where it named none."""
        said = _LAST_WORDS.findall(self.text())
        return said[-1] if said else ""

    def unloadable(self) -> str | None:
        """What the loader of shared libraries says of a program that it cannot start; None where it says nothing."""
        failure = _NOT_LOADED.search(self.text())
        return failure["reason"] if failure else None

    def naming(self, message: str) -> str:
        """The message, with the place of the log."""
        return f"{message} (log: {self.path})"

    def discard(self) -> None:
        """The server ended well: remove a file that nobody asked for."""
        if self._is_ours:
            self.path.unlink(missing_ok=True)
