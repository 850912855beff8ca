"""The names that `import clipserve` offers."""

from importlib.metadata import version

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.classifier import VideoClassifier
from clipserve.connection import Tls
from clipserve.contract import ClipContract
from clipserve.errors import (
    AccessDenied,
    ClipserveError,
    DeadlineExceeded,
    DecodeCrashed,
    DecodeFailed,
    DecodeOutOfMemory,
    DecodeTimedOut,
    EmptyVideo,
    EncryptedVideo,
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
from clipserve.evaluation import Comparison, Evaluation, compare, evaluate
from clipserve.fitting import Fitted, Head, fit
from clipserve.names import read_name
from clipserve.results import Prediction, Row, ScoredLabel
from clipserve.runs.async_streams import AsyncRowStream
from clipserve.runs.streams import RowStream
from clipserve.runs.summary import Summary
from clipserve.sources.downloads import DownloadLimits
from clipserve.sources.entries import Entry
from clipserve.sources.source import Source, read_entries
from clipserve.sources.videos import VideoSource
from clipserve.tables.embeddings import Embeddings
from clipserve.tables.table import Table
from clipserve.timeline.async_many import AsyncTimelineRows
from clipserve.timeline.many import TimelineRow, TimelineRows
from clipserve.timeline.segments import Segment, SegmentOptions, segments
from clipserve.timeline.timelines import AsyncTimeline, Timeline
from clipserve.timeline.window import VideoFacts, Window

__version__ = version("clipserve")

__all__ = [
    "AccessDenied",
    "AsyncRowStream",
    "AsyncTimeline",
    "AsyncTimelineRows",
    "AsyncVideoClassifier",
    "ClipContract",
    "ClipserveError",
    "Comparison",
    "DeadlineExceeded",
    "DecodeCrashed",
    "DecodeFailed",
    "DecodeOutOfMemory",
    "DecodeTimedOut",
    "DownloadLimits",
    "Embeddings",
    "EmptyVideo",
    "EncryptedVideo",
    "Entry",
    "Evaluation",
    "Fitted",
    "Head",
    "InvalidRequest",
    "LimitExceeded",
    "ModelNotReady",
    "NoVideoStream",
    "NotAVideo",
    "Prediction",
    "RequestCancelled",
    "RequestError",
    "Row",
    "RowStream",
    "ScoredLabel",
    "Segment",
    "SegmentOptions",
    "ServerBusy",
    "ServerError",
    "ServerFailed",
    "ServerUnavailable",
    "Source",
    "Summary",
    "Table",
    "Timeline",
    "TimelineRow",
    "TimelineRows",
    "Tls",
    "TruncatedVideo",
    "UnexpectedAnswer",
    "UnknownModel",
    "UnsupportedCodec",
    "VideoClassifier",
    "VideoError",
    "VideoFacts",
    "VideoNotReadable",
    "VideoSource",
    "VideoTooLarge",
    "VideoTooLong",
    "Window",
    "__version__",
    "compare",
    "evaluate",
    "fit",
    "read_entries",
    "read_name",
    "segments",
]
