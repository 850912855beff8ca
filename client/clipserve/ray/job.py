"""A job: the results of a Dataset in a folder, in as many runs as it takes."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from clipserve.arguments import takes
from clipserve.errors import ClipserveError, InvalidRequest
from clipserve.ray.actor import VIDEOS, WINDOWS, Question
from clipserve.ray.calls import AnyRow
from clipserve.ray.columns import read_ids
from clipserve.ray.dataset import ask
from clipserve.ray.options import AnyOptions, DatasetOptions, JobOptions, TimelineJobOptions
from clipserve.ray.results import ResultFolder, ResultSink, WindowFolder

if TYPE_CHECKING:
    from ray.data import Dataset

HELD_SECONDS = 10.0  # a job that was killed leaves its folder within a few


@dataclass(frozen=True)
class JobSummary:
    """What a run of a job did.

    Attributes:
        done_before: videos that were in the folder already.
        rows: videos that this run has written.
        truncated: how many of these are damaged or truncated.
        failed: how many of these failed, by the code of the error.
    """

    done_before: int
    rows: int
    truncated: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {code}" for code, count in self.failed.most_common())
        failed = f"{self.failed.total()} failed" + (f" ({kinds})" if kinds else "")
        return f"{self.done_before} rows were there, {self.rows} are new; of these {failed}, {self.truncated} truncated"


@takes(JobOptions)
def run_job(dataset: "Dataset", options: JobOptions) -> JobSummary:
    """Classify a Dataset into parquet files in the folder `out`; skip the ids that have a row there.

    >>> run_job(ray.data.read_parquet("videos.parquet"), "x3d_m", "gpu1:8001", out="s3://bucket/results")

    Run it again to continue after an interruption, or when the Dataset has grown. It tries a video again if its failure
    was not about the video itself (a missing file, a server that failed). Only one job at a time may write to a folder.
    Ids must be unique; without `id` and `path` they are the SHA-256 of the bytes.

    Raises:
        InvalidRequest: an argument or a column is not allowed, the folder was started with another model or
            other options, or another job of this cluster writes to it.
        UnknownModel, AccessDenied: no video can be classified.
        ServerUnavailable, ServerBusy, ModelNotReady: the servers were away for longer than `retry_seconds`. Rows that
            were written stay.
    """
    return continue_job(dataset, ResultFolder(options.out), VIDEOS, options)


@takes(TimelineJobOptions)
def run_timeline_job(dataset: "Dataset", options: TimelineJobOptions) -> JobSummary:
    """Write the windows of a Dataset into parquet files in the folder `out`; leave out the ids that are complete there.

    >>> run_timeline_job(ray.data.read_parquet("matches.parquet"), "x3d_m", "gpu1:8001", out="s3://bucket/windows")

    Run it again after it was interrupted, or when the Dataset has grown: it goes on, as `run_job`, with the videos of
    which windows are missing.

    Raises:
        ClipserveError: as `run_job`.
    """
    return continue_job(dataset, WindowFolder(options.out), WINDOWS, options)


def continue_job(
    dataset: "Dataset", folder: ResultFolder, question: Question[AnyRow, AnyOptions], options: AnyOptions
) -> JobSummary:
    """Write the answers that the folder lacks. Raises as `run_job`."""
    if not ray.is_initialized():
        ray.init()
    sink = ResultSink(folder)
    with hold_folder(folder):
        folder.check_settings(describe_settings(options))
        done = folder.find_done()
        if len(done):
            # Once for all tasks: 160 MB for ten million ids.
            dataset = dataset.map_batches(
                leave_out_done, fn_args=(ray.put(done),), batch_size=None, batch_format="pyarrow", zero_copy_batch=True
            )
        try:
            ask(dataset, question, options).write_datasink(sink)
        except Exception as error:
            raise find_cause(error) from error
    return JobSummary(
        done_before=len(done),
        rows=sum(part.rows for part in sink.written),
        truncated=sum(part.truncated for part in sink.written),
        failed=sum((part.failed for part in sink.written), Counter()),
    )


def describe_settings(options: DatasetOptions) -> dict[str, Any]:
    """The settings that the rows depend on: no addresses, no deadlines."""
    return {"model": options.model, "feature_column": options.feature_column, **options.settings()}


class Holder:
    """An actor whose name says that a job writes to a folder. It ends with the driver of that job."""


@contextmanager
def hold_folder(folder: ResultFolder) -> Iterator[None]:
    """Keep the other jobs of this cluster from the folder.

    Raises:
        InvalidRequest: one of them writes to it.
    """
    name = f"results-{hashlib.sha256(folder.path.encode()).hexdigest()}"
    end = time.monotonic() + HELD_SECONDS
    while True:
        try:
            holder = ray.remote(num_cpus=0)(Holder).options(name=name, namespace="clipserve").remote()
            break
        except ValueError as error:  # the name is taken
            if time.monotonic() > end:
                raise InvalidRequest(
                    f"another job of this cluster writes to {folder.out!r}: wait for it, or choose another folder"
                ) from error
            time.sleep(0.5)
    try:
        yield
    finally:
        ray.kill(holder)


def leave_out_done(table: pa.Table, done: Any) -> pa.Table:
    """The rows that still need work. Called by Ray, in a task."""
    return table.filter(pa.array(~ray.get(done).find(read_ids(table))))


def find_cause(error: BaseException) -> BaseException:
    """The error of clipserve that made Ray's, or else Ray's own."""
    link: BaseException | None = error
    while link is not None:
        # Ray's own is of both kinds, and its text is a traceback of other processes.
        if isinstance(link, ClipserveError) and not isinstance(link, RayTaskError):
            return link
        link = getattr(link, "cause", None) or link.__cause__
    return error
