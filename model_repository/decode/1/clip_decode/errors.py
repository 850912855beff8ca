"""What can go wrong with one video, as one tree with stable codes.

    DecodeError
    ├── InvalidRequest          invalid-request
    ├── VideoError              the bytes can not be served
    │   ├── NotAVideo           not-a-video
    │   ├── NoVideoStream       no-video-stream
    │   ├── UnsupportedCodec    unsupported-codec
    │   ├── Encrypted           encrypted
    │   ├── Truncated           truncated
    │   ├── TooLarge            too-large
    │   └── TooLong             too-long
    └── WorkerError             the process that decoded it failed
        ├── TimedOut            timed-out
        ├── Crashed             crashed
        ├── OutOfMemory         out-of-memory
        ├── Failed              failed
        └── Busy                busy

The engine raises the first two branches; whoever runs it in worker processes raises the third.
"""

from __future__ import annotations

from typing import ClassVar


class DecodeError(Exception):
    """A video, or a wish for one, that can not be answered; `code` is stable, `message` is prose.

    Called on this class itself, `DecodeError(code, message)` builds the class of that code, which
    is how an error crosses a process boundary; the subclasses take the message alone.
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
    """No error: a decoder leaves this video to another one; the text says why."""


class InvalidRequest(DecodeError):
    """A parameter of the request is unknown, of the wrong type or out of bounds."""

    code = "invalid-request"


class VideoError(DecodeError):
    """The bytes are not a video that this service decodes."""


class NotAVideo(VideoError):
    """No allowed container: empty, random, an image, an archive, a playlist."""

    code = "not-a-video"


class NoVideoStream(VideoError):
    """A container that holds no moving picture: audio only, or cover art."""

    code = "no-video-stream"


class UnsupportedCodec(VideoError):
    """A picture stream in a codec that is not on the list, or that no decoder here reads."""

    code = "unsupported-codec"


class Encrypted(VideoError):
    """A picture stream whose packets are encrypted: there is no key here."""

    code = "encrypted"


class Truncated(VideoError):
    """A known container from which not one frame can be decoded."""

    code = "truncated"


class TooLarge(VideoError):
    """More bytes, or more pixels in a frame, than the limits allow."""

    code = "too-large"


class TooLong(VideoError):
    """More seconds or frames than the limits allow."""

    code = "too-long"


class WorkerError(DecodeError):
    """Decoding was given up on, whatever the bytes were."""


class TimedOut(WorkerError):
    """Decoding took longer than a request may take."""

    code = "timed-out"


class Crashed(WorkerError):
    """The process that decoded the video died."""

    code = "crashed"


class OutOfMemory(WorkerError):
    """Decoding needed more memory than a worker may have."""

    code = "out-of-memory"


class Failed(WorkerError):
    """The decode step has a defect that this video shows: an exception that nobody expected."""

    code = "failed"


class Busy(WorkerError):
    """No worker is free and the queue is full, or none can be started: try again later."""

    code = "busy"
    retryable = True


def error_classes() -> dict[str, type[DecodeError]]:
    """Every code and its class."""
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
