"""What a caller can ask of Ray: the connection, the request, and how the work is spread."""

import os
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, TypeVar

from clipserve.arguments import Argument
from clipserve.checks import check_bool, check_int, check_positive_int, check_seconds
from clipserve.connection import Connection
from clipserve.errors import InvalidRequest
from clipserve.options import RequestOptions
from clipserve.timeline.options import TimelineOptions

# Of 1,000 rows with features of x3d_m a parquet file has 8 MiB. An actor that dies loses the work of its batches.
BATCH_ROWS = 1000
PARALLEL = 16
# Long videos: see TimelineRunArguments.parallel, and the server's limit.
TIMELINES_PARALLEL, TIMELINES_BATCH_ROWS = 2, 8
RETRY_SECONDS = 600.0


def check_repository(name: str, value: object) -> str:
    """Accept the path of a model repository."""
    return check_path(name, value, "the path of a model repository on every node")


def check_out(name: str, value: object) -> str:
    """Accept the folder of results."""
    return check_path(name, value, "a folder: a path, or an address such as s3://bucket/results")


def check_path(name: str, value: object, described: str) -> str:
    """Accept a path, or an address, and return it as text."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise InvalidRequest(f"{name} must be {described}; got {value!r}")
    return path


def check_column(name: str, value: object) -> str:
    """Accept the name of a column."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be the name of a column, got {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(RequestOptions, Connection):
    """The arguments of `classify` beside the Dataset."""

    actors: Annotated[
        int | None,
        Argument(
            "number of actors, which send videos; None: one for each node of the cluster. An actor waits for servers"
            " most of the time, so it reserves no CPU",
            check_positive_int,
            metavar="N",
        ),
    ] = None
    parallel: Annotated[
        int, Argument("number of requests that each actor has in flight", check_positive_int, metavar="N")
    ] = PARALLEL
    batch_rows: Annotated[
        int,
        Argument(
            "rows of a task, and of a result file. When an actor dies, Ray repeats its tasks",
            check_positive_int,
            metavar="N",
        ),
    ] = BATCH_ROWS
    retry_seconds: Annotated[
        float,
        Argument(
            "how long to wait for servers that are busy, do not answer, or load the model, at least"
            " timeout_seconds; then the job ends",
            check_seconds,
        ),
    ] = RETRY_SECONDS
    feature_column: Annotated[
        str, Argument("name of the column for the features; NeMo Curator reads 'embedding'", check_column)
    ] = "features"
    embedded: Annotated[
        bool,
        Argument(
            "start a Triton on each node for the time of the job, in place of the servers of `url`; each node needs"
            " pip install 'clipserve[server]'",
            check_bool,
        ),
    ] = False
    repository: Annotated[
        str,
        Argument("with `embedded`: the model repository, at the same path on each node", check_repository, "DIR"),
    ] = "model_repository"
    num_gpus: Annotated[
        int,
        Argument(
            "with `embedded`: number of GPUs of each node; its Triton uses all of them",
            partial(check_int, allowed=range(1025), described="a whole number from 0 on"),
            metavar="N",
        ),
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_gpus and not self.embedded:
            raise InvalidRequest("num_gpus needs embedded=True: a client of other servers needs no GPU")

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The arguments of a classifier."""
        return {field.name: getattr(self, field.name) for field in fields(Connection)} | changes


AnyOptions = TypeVar("AnyOptions", bound=DatasetOptions)


@dataclass(frozen=True, kw_only=True)
class TimelineDatasetOptions(TimelineOptions, DatasetOptions):
    """The arguments of `timeline`: those of `classify` with other defaults, and the windows."""

    parallel: Annotated[
        int,
        Argument("how many videos each actor sends at once; a server follows four", check_positive_int, metavar="N"),
    ] = TIMELINES_PARALLEL
    batch_rows: Annotated[
        int, Argument("videos of one task: what is done again when an actor dies", check_positive_int, metavar="N")
    ] = TIMELINES_BATCH_ROWS


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(DatasetOptions):
    """The arguments of `embed`: those of `classify` with other defaults."""

    top_k: Annotated[
        int, Argument("number of labels to return in addition to the vector", check_positive_int, metavar="N")
    ] = 1
    features: Annotated[bool, Argument("always on", lambda _name, _value: True)] = True
    feature_column: Annotated[str, Argument("name of the column for the vectors", check_column)] = "embedding"


@dataclass(frozen=True, kw_only=True)
class JobOptions(DatasetOptions):
    """The arguments of `run_job`: those of `classify`, and the folder."""

    out: Annotated[
        str,
        Argument(
            "folder for the results: a path, or an address that pyarrow supports, such as s3://bucket/results",
            check_out,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class TimelineJobOptions(TimelineDatasetOptions, JobOptions):
    """The arguments of `run_timeline_job`: those of `timeline`, and the folder."""
