"""Human-action recognition for video: the client of a clipserve server.

>>> from clipserve import VideoClassifier
>>> with VideoClassifier("x3d_m") as classifier:
...     print(classifier.classify("archery.mp4").top)
archery 0.93
"""

from importlib.metadata import version

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.channel import Tls
from clipserve.classifier import VideoClassifier
from clipserve.errors import (
    AccessDenied,
    ClipserveError,
    DeadlineExceeded,
    DecodeCrashed,
    DecodeOutOfMemory,
    DecodeTimedOut,
    EmptyVideo,
    InvalidRequest,
    LimitExceeded,
    ModelNotReady,
    NotAVideo,
    NoVideoStream,
    RequestCancelled,
    RequestError,
    ServerBusy,
    ServerError,
    ServerFailed,
    ServerUnavailable,
    TruncatedVideo,
    UnexpectedAnswer,
    UnknownModel,
    UnsupportedCodec,
    VideoError,
    VideoNotReadable,
    VideoTooLarge,
    VideoTooLong,
)
from clipserve.results import Prediction, ScoredLabel
from clipserve.videos import VideoSource

__version__ = version("clipserve")

__all__ = [
    "AccessDenied",
    "AsyncVideoClassifier",
    "ClipserveError",
    "DeadlineExceeded",
    "DecodeCrashed",
    "DecodeOutOfMemory",
    "DecodeTimedOut",
    "EmptyVideo",
    "InvalidRequest",
    "LimitExceeded",
    "ModelNotReady",
    "NoVideoStream",
    "NotAVideo",
    "Prediction",
    "RequestCancelled",
    "RequestError",
    "ScoredLabel",
    "ServerBusy",
    "ServerError",
    "ServerFailed",
    "ServerUnavailable",
    "Tls",
    "TruncatedVideo",
    "UnexpectedAnswer",
    "UnknownModel",
    "UnsupportedCodec",
    "VideoClassifier",
    "VideoError",
    "VideoNotReadable",
    "VideoSource",
    "VideoTooLarge",
    "VideoTooLong",
    "__version__",
]
