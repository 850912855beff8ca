"""Classify the videos of a Ray Dataset: `pip install 'clipserve[ray]'`.

>>> import ray
>>> from clipserve.ray import classify
>>> videos = ray.data.read_parquet("videos.parquet")  # with a column path
>>> classify(videos, "x3d_m", "gpu1:8001").write_parquet("results/")

`classify` and `embed` add columns to a Dataset; `timeline` gives the windows of its videos. `run_job` and
`run_timeline_job` write a folder of parquet files, and another run continues where the last one stopped. `actor.py`
runs in the actors, `calls.py` sends the videos of many batches in one run, `columns.py` and `window_columns.py` list
the columns of the results, `node_server.py` starts the Triton of a node, `results.py` writes the folder of results.
"""

try:
    import ray.data as _ray_data  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"clipserve.ray needs {error.name}: pip install 'clipserve[ray]'", name=error.name
    ) from None

from clipserve.ray.dataset import classify, embed, timeline
from clipserve.ray.job import JobSummary, run_job, run_timeline_job

__all__ = ["JobSummary", "classify", "embed", "run_job", "run_timeline_job", "timeline"]
