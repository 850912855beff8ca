"""The log of Triton and all processes that it starts: one file, searched for the reason of a failure."""

import os
import re
import signal
import tempfile
from pathlib import Path

from clipserve_server.errors import ModelLoadError, ServerStartError

# Lines in which Triton 2.51 says why it ends, the most specific first.
_MODEL_FAILURES = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)"),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+)"),
    re.compile(r"load failed for model '(?P<model>[^']+)': (?P<reason>.+)"),
)
# What glibc's loader writes about a program that it cannot start.
_NOT_LOADED = re.compile(
    r"^\S+: (?P<reason>error while loading shared libraries: .+|symbol lookup error: .+|\S+: version `.+' not found.*)",
    re.MULTILINE,
)
_ERROR = re.compile(r"^error: (?P<reason>.+)", re.MULTILINE)
_LAST_LINES = 3


class TritonLog:
    """The log of one start.

    path: the file to append to, which stays. None: a temporary file, which `discard` removes.
    Raises ServerStartError when the file cannot be written.
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
            # gettempdir() raises OSError itself where no temporary folder can be written.
            place = path or tempfile.tempdir or "in a temporary folder"
            raise ServerStartError(f"the log {place} cannot be written: {error.strerror}") from error

    def size(self) -> int:
        """Its bytes. 0 where the log is no regular file."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def text(self) -> str:
        """What was written since this start. Empty where the log is no regular file."""
        if not self.path.is_file():
            return ""
        with self.path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def explain(self, what_happened: str) -> ServerStartError:
        """The error of a server that did not start or has ended: the reason in the log, or else `what_happened`."""
        text = self.text()
        for pattern in _MODEL_FAILURES:
            if failure := pattern.search(text):
                # A Python model's traceback follows, with its line ends escaped.
                reason = failure["reason"].partition("\\n")[0].strip(' "')
                return ModelLoadError(self.with_path(f"{failure['model']} does not load: {reason}"))
        if reason := self.loader_error():
            return ServerStartError(self.with_path(f"a process of Triton does not start: {reason}"))
        last = self.last_error() or " ".join(text.split("\n")[-_LAST_LINES:]).strip() or "its log is empty"
        return ServerStartError(self.with_path(f"{what_happened}: {last}"))

    def explain_exit(self, status: int | None, *, was_ready: bool) -> ServerStartError:
        """The error of a server that ended by itself. status: 128 + a signal's number where that killed it."""
        # 255 is the status of many programs that fail, and no signal.
        if status is not None and status - 128 in list(signal.Signals):
            # A killed Triton does not log that. The end of its log is about something else.
            signal_name = signal.Signals(status - 128).name
            return ServerStartError(self.with_path(f"Triton ended by itself ({signal_name})"))
        if was_ready:
            reason = self.last_error()
            message = f"Triton ended by itself (status {status}){': ' if reason else ''}{reason}"
            return ServerStartError(self.with_path(message))
        return self.explain("Triton ended by itself")

    def last_error(self) -> str:
        """The last error that Triton wrote; empty where it wrote none."""
        errors = _ERROR.findall(self.text())
        return errors[-1] if errors else ""

    def loader_error(self) -> str | None:
        """What the loader of shared libraries wrote about a program that it could not start; None for nothing."""
        failure = _NOT_LOADED.search(self.text())
        return failure["reason"] if failure else None

    def with_path(self, message: str) -> str:
        """The message, with the path of the log."""
        return f"{message} (log: {self.path})"

    def discard(self) -> None:
        """Remove a temporary file, because the server ended well."""
        if self._is_ours:
            self.path.unlink(missing_ok=True)
