"""One video, as callers give it: read into its name and its bytes."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias

from clipserve.cancellation import Cancellation
from clipserve.checks import MAX_VIDEO_BYTES
from clipserve.errors import EmptyVideo, InvalidRequest, VideoNotReadable, VideoTooLarge
from clipserve.names import spell_name
from clipserve.sources.addresses import hide_credentials, is_address, is_elsewhere
from clipserve.sources.downloads import DownloadLimits, download
from clipserve.sources.remote_paths import is_remote
from clipserve.sources.stores import read_object

VideoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]

CHUNK_BYTES = 16 * 1024 * 1024  # most videos fit into one, and are then never copied


@dataclass(frozen=True)
class Video:
    """The bytes of one video file, and its name in messages."""

    name: str
    content: bytes = field(repr=False)


def name_video(source: VideoSource) -> str:
    """The name of `source` in results and messages, escaped as names.py says."""
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        return spell_name(hide_credentials(text) if is_elsewhere(source) else text)
    name = getattr(source, "name", None)
    # open(3).name is the descriptor's number, which names nothing.
    if isinstance(name, str) and name:
        return spell_name(name)
    return "<file>" if hasattr(source, "read") else "<bytes>"


def read_video(
    source: VideoSource, limits: DownloadLimits | None = None, cancellation: Cancellation | None = None
) -> Video:
    """Read a path, an address (http, https, or a store such as s3://bucket/key), bytes, or a file opened in binary from
    its current position on.

    Raises:
        InvalidRequest: `source` is none of these.
        VideoNotReadable: the file does not open or read, or the address cannot be fetched.
        EmptyVideo, VideoTooLarge: no bytes, or more than one message carries. A large file is
            refused before it is read.
    """
    name = name_video(source)
    try:
        if isinstance(source, str) and is_address(source):
            content = download(source, limits or DownloadLimits(), cancellation or Cancellation())
        elif isinstance(source, str) and is_remote(source):
            content = read_object(source, limits or DownloadLimits(), cancellation or Cancellation())
        else:
            content = _read_content(source, name)
    except (OSError, ValueError) as exc:  # ValueError: a closed file, a NUL byte in a path
        reason = getattr(exc, "strerror", None) or exc
        advice = (
            "Give a folder to classify_many or timeline_many."
            if isinstance(exc, IsADirectoryError)
            else "Give the path of a video file on this machine, its bytes, or a file opened with mode 'rb'."
        )
        raise VideoNotReadable(f"cannot read {name!r}: {reason}. {advice}", video=name) from exc
    if not content:
        raise EmptyVideo(f"{name!r} is empty: there are no bytes to classify", video=name)
    return Video(name, content)


def _read_content(source: VideoSource, name: str) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        _check_size(memoryview(source).nbytes, name)
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_size(size, name)
            return _read_file(file, name, size)
    if isinstance(source, io.TextIOBase):
        raise InvalidRequest(
            f"{name!r} is open in text mode, which would decode the video as text: open it with mode 'rb'",
            video=name,
        )
    if hasattr(source, "read"):
        size = _remaining_bytes(source)
        _check_size(size, name)
        return _read_file(source, name, size)
    raise InvalidRequest(
        "a video must be a path (str or os.PathLike), an http(s) address, bytes, bytearray, memoryview or a file opened"
        f" with mode 'rb'; got {type(source).__name__}",
        video=None,
    )


def _read_file(file: IO[bytes], name: str, expected: int) -> bytes:
    """Read to the end, in chunks: a stream has no size to check ahead, and a file may grow."""
    chunks: list[bytes] = []
    size = 0
    # Asking for one byte more than expected returns less, which saves most files a second read and its buffer.
    while chunk := file.read(expected + 1 - size if size <= expected else CHUNK_BYTES):
        if not isinstance(chunk, bytes):
            raise InvalidRequest(
                f"reading {name!r} gave {type(chunk).__name__}, not bytes: open it with mode 'rb'",
                video=name,
            )
        size += len(chunk)
        _check_size(size, name)
        chunks.append(chunk)
    return b"".join(chunks)


def _remaining_bytes(file: IO[bytes]) -> int:
    """Bytes from the current position on; 0 if the file cannot tell."""
    try:
        position = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(position)
    except (OSError, AttributeError):  # a pipe or a socket
        return 0
    return end - position


def _check_size(size: int, name: str) -> None:
    if size > MAX_VIDEO_BYTES:
        raise VideoTooLarge(
            f"{name!r} has {size:,} bytes, and one request carries at most"
            f" {MAX_VIDEO_BYTES:,}: cut the video, or encode it at a smaller size",
            video=name,
        )
