"""Everything that can go wrong, as one tree.

ClipserveError
├── VideoError               final: it is about this video, whatever is tried again
│   ├── EmptyVideo           empty                no bytes at all
│   ├── NotAVideo            not-a-video          the bytes are no video the server opens
│   ├── NoVideoStream        no-video-stream      a container with sound only, say
│   ├── UnsupportedCodec     unsupported-codec
│   ├── EncryptedVideo       encrypted            the server has no keys
│   ├── TruncatedVideo       truncated            cut off before the frames that are needed
│   ├── VideoTooLarge        too-large            too many bytes, or pixels a frame
│   ├── VideoTooLong         too-long
│   ├── DecodeTimedOut       timed-out            decoding alone took longer than the server allows
│   ├── DecodeCrashed        crashed              this video brings decoders down
│   ├── DecodeOutOfMemory    out-of-memory        decoding needs more memory than the server allows
│   └── DecodeFailed         failed               this video meets a defect of the server; its log says which
├── RequestError             the caller can put it right
│   ├── InvalidRequest       invalid-request      an argument is not what is allowed
│   ├── UnknownModel         unknown-model        lists the models there are
│   └── VideoNotReadable     video-not-readable   the local file does not open or read
└── ServerError              the server, or the way to it
    ├── ServerUnavailable    unavailable          retryable: nobody answers at this address
    ├── ServerBusy           busy                 retryable: its queue is full
    ├── ModelNotReady        model-not-ready      retryable: there, but not (or no longer) loaded
    ├── DeadlineExceeded     deadline-exceeded    retryable: no answer within timeout_seconds
    ├── AccessDenied         access-denied        credentials are missing or refused
    ├── RequestCancelled     cancelled            by the server or something on the way
    ├── LimitExceeded        limit-exceeded       a size or rate limit on the way
    ├── ServerFailed         server-failed        the server tried and broke
    └── UnexpectedAnswer     unexpected-answer    an answer that breaks the contract

The second column is `code`, stable and meant for programs; the message is meant for people.
"""

from typing import ClassVar

from clipserve.names import make_message


class ClipserveError(Exception):
    """Base of everything this package raises.

    Attributes:
        code: stable, lower-case name of the cause.
        retryable: whether the very same call may succeed later.
        video: name of the video it is about, as `Row.video` spells it, or None.
        model: name of the model it is about, or None.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, video: str | None = None, model: str | None = None) -> None:
        super().__init__(make_message(message))  # a server's words and file names are in it
        self.video = video
        self.model = model


class VideoError(ClipserveError):
    """The video cannot be classified, and trying again does not change that."""

    code = "video"


class EmptyVideo(VideoError):
    code = "empty"


class NotAVideo(VideoError):
    code = "not-a-video"


class NoVideoStream(VideoError):
    code = "no-video-stream"


class UnsupportedCodec(VideoError):
    code = "unsupported-codec"


class EncryptedVideo(VideoError):
    code = "encrypted"


class TruncatedVideo(VideoError):
    code = "truncated"


class VideoTooLarge(VideoError):
    code = "too-large"


class VideoTooLong(VideoError):
    code = "too-long"


class DecodeTimedOut(VideoError):
    code = "timed-out"


class DecodeCrashed(VideoError):
    """Not retryable on purpose: the same bytes would bring the next decoder down as well."""

    code = "crashed"


class DecodeOutOfMemory(VideoError):
    code = "out-of-memory"


class DecodeFailed(VideoError):
    code = "failed"


class RequestError(ClipserveError):
    """The caller can put it right."""

    code = "request"


class InvalidRequest(RequestError):
    code = "invalid-request"


class UnknownModel(RequestError):
    """The server has no model of that name.

    Attributes:
        models: the models it does have, or None if it would not say.
    """

    code = "unknown-model"
    models: tuple[str, ...] | None = None


class VideoNotReadable(RequestError):
    code = "video-not-readable"


class ServerError(ClipserveError):
    """The server, or the way to it."""

    code = "server"


class ServerUnavailable(ServerError):
    code = "unavailable"
    retryable = True


class ServerBusy(ServerError):
    code = "busy"
    retryable = True


class ModelNotReady(ServerError):
    code = "model-not-ready"
    retryable = True


class DeadlineExceeded(ServerError):
    code = "deadline-exceeded"
    retryable = True


class AccessDenied(ServerError):
    code = "access-denied"


class RequestCancelled(ServerError):
    code = "cancelled"


class LimitExceeded(ServerError):
    code = "limit-exceeded"


class ServerFailed(ServerError):
    code = "server-failed"


class UnexpectedAnswer(ServerError):
    code = "unexpected-answer"
