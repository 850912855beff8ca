"""Errors of decoding, as one tree with stable codes.

    DecodeError
    ├── InvalidRequest          invalid-request
    ├── VideoError              the bytes cannot be decoded
    │   ├── NotAVideo           not-a-video
    │   ├── NoVideoStream       no-video-stream
    │   ├── UnsupportedCodec    unsupported-codec
    │   ├── Encrypted           encrypted
    │   ├── Truncated           truncated
    │   ├── TooLarge            too-large
    │   └── TooLong             too-long
    └── WorkerError             the process that decoded the video failed
        ├── TimedOut            timed-out
        ├── Crashed             crashed
        ├── OutOfMemory         out-of-memory
        ├── Failed              failed
        └── Busy                busy

`decode_clips` raises the first two branches. A pool of worker processes raises the third.
"""

from __future__ import annotations

from typing import ClassVar


class DecodeError(Exception):
    """A video could not be decoded as requested.

    `DecodeError(code, message)` creates an instance of the subclass with that code, so that an error can cross a
    process boundary. The subclasses take the message alone.

    Attributes:
        code: stable; for programs.
        message: prose; for people.
        retryable: whether the same request may succeed later.
    """

    code: ClassVar[str] = "decode-error"
    retryable: ClassVar[bool] = False

    def __new__(cls, *args: object) -> DecodeError:
        if cls is DecodeError and len(args) == 2:
            return super().__new__(_class_of(str(args[0])), *args)
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        self.message = str(args[-1]) if args else ""
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return type(self), (self.message,)


class Declined(Exception):
    """A hardware decoder leaves this video to the CPU; the text says why. Not an error."""


class InvalidRequest(DecodeError):
    """A parameter of the request is unknown, has the wrong type or is out of bounds."""

    code = "invalid-request"


class VideoError(DecodeError):
    """The bytes are not a video that can be decoded here."""


class NotAVideo(VideoError):
    """The bytes are in no allowed container: empty, random, an image, an archive, a playlist."""

    code = "not-a-video"


class NoVideoStream(VideoError):
    """The container holds only audio, text or cover art."""

    code = "no-video-stream"


class UnsupportedCodec(VideoError):
    """The codec of the video stream is not allowed, or there is no decoder for it."""

    code = "unsupported-codec"


class Encrypted(VideoError):
    """The video stream is encrypted, and there is no key for it."""

    code = "encrypted"


class Truncated(VideoError):
    """The container is known, but not one frame can be decoded."""

    code = "truncated"


class TooLarge(VideoError):
    """The file has more bytes, or a frame has more pixels, than the limits allow."""

    code = "too-large"


class TooLong(VideoError):
    """The video has more seconds or frames than the limits allow."""

    code = "too-long"


class WorkerError(DecodeError):
    """The worker process did not decode the video; the bytes may be fine."""


class TimedOut(WorkerError):
    """Decoding took longer than a request may take."""

    code = "timed-out"


class Crashed(WorkerError):
    """The process that decoded the video died."""

    code = "crashed"


class OutOfMemory(WorkerError):
    """Decoding needed more memory than a worker may use."""

    code = "out-of-memory"


class Failed(WorkerError):
    """Decoding raised an unexpected exception: a defect of the server."""

    code = "failed"


class Busy(WorkerError):
    """No worker is free and the queue is full, or no worker can be started: try again later."""

    code = "busy"
    retryable = True


def error_classes() -> dict[str, type[DecodeError]]:
    """Every code with its class."""
    found: dict[str, type[DecodeError]] = {}
    pending = [DecodeError]
    while pending:
        for child in pending.pop().__subclasses__():
            pending.append(child)
            if "code" in vars(child):
                found[child.code] = child
    return found


def _class_of(code: str) -> type[DecodeError]:
    known = error_classes()
    if code not in known:
        raise ValueError(f"no decode error has the code {code!r}; known: {', '.join(known)}")
    return known[code]
