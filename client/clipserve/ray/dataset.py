"""`classify`, `embed` and `timeline`: steps of a Ray Data pipeline."""

from typing import TYPE_CHECKING

import ray
from ray.data import ActorPoolStrategy

from clipserve.arguments import takes
from clipserve.errors import InvalidRequest
from clipserve.ray.actor import VIDEOS, WINDOWS, Question, VideoActor
from clipserve.ray.calls import AnyRow
from clipserve.ray.columns import check_columns
from clipserve.ray.options import AnyOptions, DatasetOptions, EmbedOptions, TimelineDatasetOptions

if TYPE_CHECKING:
    from ray.data import Dataset

# While the last videos of one batch are on their way, those of the next are sent.
CALLS_AT_A_TIME = 2


@takes(DatasetOptions)
def classify(dataset: "Dataset", options: DatasetOptions) -> "Dataset":
    """Add the columns of a classification to a Dataset of videos. Ray runs it when the rows are used.

    >>> results = classify(ray.data.read_parquet("videos.parquet"), "x3d_m", "gpu1:8001", features=True)
    >>> results.write_parquet("results/")

    The Dataset has a column `path` (paths or addresses, which the actors read) or `bytes`, as
    `ray.data.read_binary_files` reads them. `columns.py` lists the columns of the result. A video that fails has a row
    with its `error`. The job fails if no video can succeed: the model is unknown, credentials are missing, or the
    servers do not answer for longer than `retry_seconds`.

    Raises:
        InvalidRequest: an argument, or a column of the Dataset, is not allowed. Where its columns are not known
            yet, the job raises it.
    """
    return ask(dataset, VIDEOS, options)


@takes(EmbedOptions)
def embed(dataset: "Dataset", options: EmbedOptions) -> "Dataset":
    """Add feature vectors to a Dataset of videos, in the column `embedding`; else as `classify`.

    `id` and `embedding` (a list of float32) are the columns that the deduplication of NeMo Curator reads by default.
    """
    return classify(dataset, **vars(options))


@takes(TimelineDatasetOptions)
def timeline(dataset: "Dataset", options: TimelineDatasetOptions) -> "Dataset":
    """The windows of a Dataset of videos: a row for each window, with the columns of its video.

    >>> windows = timeline(ray.data.read_parquet("matches.parquet"), "x3d_m", "gpu1:8001", window=2, step=1)
    >>> windows.write_parquet("windows/")

    The Dataset is as for `classify`. `window_columns.py` lists the columns that come out. A video that fails has a row
    with its `error`, after those of its windows so far. Windows of one video follow each other. All windows of the
    videos that an actor follows are in its memory until their video ends: some 3 KB each, and the features.

    Raises:
        InvalidRequest: as `classify`.
    """
    return ask(dataset, WINDOWS, options)


def ask(dataset: "Dataset", question: Question[AnyRow, AnyOptions], options: AnyOptions) -> "Dataset":
    """Map a Dataset of videos to the answers. Raises InvalidRequest."""
    columns = dataset.columns(fetch_if_missing=False)
    if columns is not None:
        check_columns(columns, options, question.list_types)
    # A task ends, and its rows are safe, after so many rows; a block of paths alone may have a million.
    results = dataset.repartition(target_num_rows_per_block=options.batch_rows).map_batches(
        VideoActor,
        fn_constructor_args=(question, options),
        # Blocks with fewer rows are joined, so that each call has enough of them to send `parallel` at once.
        batch_size=min(options.batch_rows, 2 * options.parallel),
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            size=count_actors(options),
            max_concurrent_calls_per_actor=CALLS_AT_A_TIME,
            enable_true_multi_threading=True,
        ),
        # Actors that held CPUs would keep the tasks that read from ever starting.
        num_cpus=0,
        num_gpus=options.num_gpus,
    )
    # The error of clipserve, and not one that only has its text.
    results.context.raise_original_map_exception = True
    return results


def count_actors(options: DatasetOptions) -> int:
    """As many as the options say, or one for each node of the cluster now.

    Raises:
        InvalidRequest: with `num_gpus`, no node has so many.
    """
    if not ray.is_initialized():
        ray.init()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in nodes if node["Resources"].get("GPU", 0) >= options.num_gpus]
    if not fitting:
        most = max(node["Resources"].get("GPU", 0) for node in nodes)
        raise InvalidRequest(f"num_gpus is {options.num_gpus}, and no node of the cluster has more than {most:g}")
    return options.actors or len(fitting)
