"""A Ray job: classify the videos of a list into a folder of parquet files, and continue where the last run stopped.

    ray job submit --working-dir . -- python examples/ray_job.py s3://bucket/videos.parquet s3://bucket/results \
        --model x3d_m --url gpu1:8001

    python examples/ray_job.py videos/ results/ --model motion --embedded --repository model_repository

The list is parquet, CSV or JSON lines with a column `path` (a path that every node has, or an address), and perhaps
`id`; or a folder of videos, which every node has or which is in a store. Without --url or --embedded the server is
localhost:8001.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import ray

from clipserve import ClipserveError, read_entries
from clipserve.ray import run_job

READERS = {".parquet": ray.data.read_parquet, ".csv": ray.data.read_csv, ".jsonl": ray.data.read_json}


def read_videos(source: str) -> Any:
    """A Dataset with a row for each video of the list, or of the folder."""
    if reader := READERS.get(Path(source).suffix):
        dataset = reader(source)
        # The results have a column `label`, the predicted one.
        return dataset.rename_columns({"label": "true_label"}) if "label" in dataset.columns() else dataset
    paths = (str(entry.video) for entry in read_entries(source))
    return ray.data.from_items([{"path": path if "://" in path else str(Path(path).absolute())} for path in paths])


def main() -> int:
    """Run the job; 1 if a video failed, 2 if the job did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="parquet, CSV or JSON lines with a column path, or a folder")
    parser.add_argument("out", help="the folder of results: a path, or an address such as s3://bucket/results")
    parser.add_argument("--model", default="x3d_m")
    parser.add_argument("--url", default="localhost:8001", help="host:port of the server")
    parser.add_argument("--embedded", action="store_true", help="start a Triton on each node, and ignore --url")
    parser.add_argument(
        "--repository",
        default="model_repository",
        help="with --embedded: the model repository, at the same path on each node",
    )
    parser.add_argument("--num-gpus", type=int, default=0, help="with --embedded: number of GPUs of each node")
    parser.add_argument("--features", action="store_true", help="also write the embedding of each video")
    parser.add_argument("--parallel", type=int, default=16, help="number of requests that each actor has in flight")
    arguments = vars(parser.parse_args())
    try:
        ray.init()
        summary = run_job(read_videos(arguments.pop("source")), feature_column="embedding", **arguments)
    except ClipserveError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        print("Run the same command to continue.", file=sys.stderr)
        return 2
    print(summary)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
