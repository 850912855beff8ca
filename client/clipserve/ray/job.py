"""A job: classify a Dataset into a folder of results, in as many runs as it takes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from clipserve.arguments import takes
from clipserve.errors import ClipserveError
from clipserve.ray.columns import read_ids
from clipserve.ray.dataset import classify
from clipserve.ray.options import DatasetOptions, JobOptions
from clipserve.ray.results import ResultFolder, ResultSink, iterate_failed

if TYPE_CHECKING:
    from ray.data import Dataset


@dataclass(frozen=True)
class JobSummary:
    """What a run of a job did.

    Attributes:
        done_before: rows that were in the folder already.
        rows: rows that this run has written.
        truncated: those of them whose video is damaged or cut off.
        failed: those of them without a prediction, by the code of the error.
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
    """Classify a Dataset into parquet files in the folder `out`; leave out the ids that have a row there.

    >>> run_job(ray.data.read_parquet("videos.parquet"), "x3d_m", "gpu1:8001", out="s3://bucket/results")

    Run it again after it was interrupted, or when the Dataset has grown: it goes on. Rows whose failure was not about
    the video itself (a file that was missing, a server that failed) are tried again. One job at a time may write to a
    folder. Ids must differ; with `bytes` alone they are SHA-256 of the bytes.

    Raises:
        InvalidRequest: an argument or a column is not what is allowed, or the folder was begun with another model or
            other options.
        UnknownModel, AccessDenied: no video can be classified.
        ServerUnavailable, ServerBusy, ModelNotReady: the servers were away for longer than `retry_seconds`. Rows that
            were written stay.
    """
    folder = ResultFolder(options.out)
    folder.check_settings(describe_settings(options))
    if not ray.is_initialized():
        ray.init()
    done = folder.find_done()
    if len(done):
        # Once for all tasks: 160 MB for ten million ids.
        dataset = dataset.map_batches(
            leave_out_done, fn_args=(ray.put(done),), batch_size=None, batch_format="pyarrow", zero_copy_batch=True
        )
    sink = ResultSink(folder)
    try:
        classify(dataset, **options.select(DatasetOptions)).write_datasink(sink)
    except Exception as error:
        raise find_cause(error) from error
    return JobSummary(
        done_before=len(done),
        rows=sum(part.rows for part in sink.written),
        truncated=sum(part.truncated for part in sink.written),
        failed=sum((Counter({code: count}) for code, count in iterate_failed(sink.written)), Counter()),
    )


def describe_settings(options: DatasetOptions) -> dict[str, Any]:
    """The settings that the rows depend on: no addresses, no deadlines."""
    return {"model": options.model, "feature_column": options.feature_column, **options.settings()}


def leave_out_done(table: pa.Table, done: Any) -> pa.Table:
    """The rows that still need work. Called by Ray, in a task."""
    return table.filter(pa.array(~ray.get(done).find(read_ids(table))))


def find_cause(error: BaseException) -> BaseException:
    """The error of clipserve that made Ray's, or else Ray's own."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ClipserveError):
            return link
        link = getattr(link, "cause", None) or link.__cause__
    return error
