"""The errors that this package raises, as one tree.

ClipserveError
├── VideoError               final: this video fails whenever it is tried again
│   ├── EmptyVideo           empty                no bytes at all
│   ├── NotAVideo            not-a-video          the bytes are no video that the server opens
│   ├── NoVideoStream        no-video-stream      such as a container with sound only
│   ├── UnsupportedCodec     unsupported-codec
│   ├── EncryptedVideo       encrypted            the server has no keys
│   ├── TruncatedVideo       truncated            cut off before the frames that are needed
│   ├── VideoTooLarge        too-large            too many bytes, or pixels a frame
│   ├── VideoTooLong         too-long
│   ├── DecodeTimedOut       timed-out            decoding alone took longer than the server allows
│   ├── DecodeCrashed        crashed              this video crashes decoders
│   ├── DecodeOutOfMemory    out-of-memory        decoding needs more memory than the server allows
│   └── DecodeFailed         failed               a defect of the server; its log says which
├── RequestError             the caller can correct it
│   ├── InvalidRequest       invalid-request      an argument is not allowed
│   ├── UnknownModel         unknown-model        lists the models that the server has
│   └── VideoNotReadable     video-not-readable   the local file does not open or read
└── ServerError              the server, or the network
    ├── ServerUnavailable    unavailable          retryable: nobody answers at this address
    ├── ServerBusy           busy                 retryable: its queue is full
    ├── ModelNotReady        model-not-ready      retryable: there, but not (or no longer) loaded
    ├── DeadlineExceeded     deadline-exceeded    retryable: no answer within timeout_seconds
    ├── AccessDenied         access-denied        credentials are missing or refused
    ├── RequestCancelled     cancelled            by close(), the server, or something on the way
    ├── LimitExceeded        limit-exceeded       a size or rate limit on the way
    ├── ServerFailed         server-failed        the server tried and failed
    └── UnexpectedAnswer     unexpected-answer    an answer that breaks the contract

The second column is `code`, which is stable and for programs; the message is for people.
"""

from typing import ClassVar

from clipserve.names import make_message


class ClipserveError(Exception):
    """Base of everything this package raises.

    Attributes:
        code: stable, lower-case name of the cause.
        retryable: whether the very same call may succeed later.
        video: name of the video that failed, as in `Row.video`, or None.
        model: name of the model, or None.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, video: str | None = None, model: str | None = None) -> None:
        super().__init__(make_message(message))  # it holds texts of the server and names of files
        self.video = video
        self.model = model


class VideoError(ClipserveError):
    """The video cannot be classified, now or later."""

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
    """Not retryable on purpose: the same bytes would crash the next decoder as well."""

    code = "crashed"


class DecodeOutOfMemory(VideoError):
    code = "out-of-memory"


class DecodeFailed(VideoError):
    code = "failed"


class RequestError(ClipserveError):
    """The caller can correct it."""

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
    """The server, or the network."""

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
    """Something ended the call: `close()` of its classifier or run, the server, or something on the way.

    A call that begins after `close()` is InvalidRequest.
    """

    code = "cancelled"


class LimitExceeded(ServerError):
    code = "limit-exceeded"


class ServerFailed(ServerError):
    code = "server-failed"


class UnexpectedAnswer(ServerError):
    code = "unexpected-answer"
