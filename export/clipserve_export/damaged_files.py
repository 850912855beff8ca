"""What can be seen of a file that its library does not read: its first bytes, and the checksums of a zip archive."""

import re
import zipfile
import zlib
from pathlib import Path

ZIP = b"PK\x03\x04"
# The first bytes of files that people pass instead of a network or its weights.
OTHER_FILES = {
    rb"(?i)\s*<(?:!doctype html|html)": "a web page",
    rb"version https://git-lfs": "a pointer of Git LFS (git lfs pull fetches the file)",
}
HEAD_BYTES = 40


def read_start(path: Path) -> bytes:
    """The first bytes of a file. Raises OSError."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def recognise(start: bytes) -> str | None:
    """Which of OTHER_FILES begins so."""
    return next((kind for pattern, kind in OTHER_FILES.items() if re.match(pattern, start)), None)


def describe_start(start: bytes) -> str:
    """Such as: it begins with b'<html>', as a web page does."""
    kind = recognise(start)
    return (f"it begins with {start!r}" if start else "it is empty") + (f", as {kind} does" if kind else "")


def explain_start(path: Path) -> str | None:
    """Why a file is none of its library's, if its first bytes show that. Raises OSError."""
    start = read_start(path)
    return None if start and not recognise(start) else describe_start(start)


def is_damaged(archive: Path) -> bool:
    """Whether a zip archive is cut off, or a file in it differs from its checksum."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.testzip() is not None
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return True


def holds_program(archive: Path) -> bool:
    """Whether a zip archive has a TorchScript program."""
    with zipfile.ZipFile(archive) as opened:
        return any(name.endswith("/constants.pkl") for name in opened.namelist())
