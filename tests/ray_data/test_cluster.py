"""Two nodes of a Ray cluster on this machine: one of them dies, and each has a Triton of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from clipserve.ray import run_job
from clipserve_export.formats import FormatName
from tests.leftovers import MARK
from tests.ray_data.rows import QUICK, check_rows
from tests.watching import wait_for

pytestmark = pytest.mark.long

# What a user would submit, with a batch that is never done.
DRIVER = """
import sys, ray
from clipserve.ray import classify
address, repository, video = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
videos = ray.data.range(1_000_000).map(lambda row: {"id": row["id"], "path": video})
for _ in classify(videos, "motion", embedded=True, repository=repository, batch_rows=20).iter_rows():
    print("row", flush=True)
"""


def tritons() -> set[int]:
    """Process ids of those that the tests of this process have started: in a parallel run others start some, too."""
    found = set()
    for process in psutil.process_iter():
        try:
            if is_triton(process) and all(
                process.environ().get(name) == os.environ.get(name) for name in (MARK, "PYTEST_XDIST_WORKER")
            ):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def is_triton(process: psutil.Process) -> bool:
    """Not its child, which has its name between fork and exec: on a busy machine that can be seen."""
    parent = process.parent()
    return process.name() == "tritonserver" and (parent is None or parent.name() != "tritonserver")


def test_each_node_has_a_triton_as_long_as_the_job_runs(
    two_nodes: tuple[Any, Any], repositories: Callable[[FormatName], Path], make_rows: Any, tmp_path: Path
) -> None:
    import ray

    before = tritons()
    most: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most.update(tritons() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    dataset = ray.data.from_items(make_rows(120))
    repository = str(repositories("onnx"))
    try:
        run_job(dataset, "motion", out=str(tmp_path), embedded=True, repository=repository, **QUICK)
    finally:
        over.set()
        watcher.join()
    check_rows(pq.read_table(tmp_path).to_pylist(), 120)
    # Ray chooses the nodes of actors that reserve no CPU: both may be on one.
    assert 1 <= len(most) <= 2
    assert wait_for(lambda: tritons() <= before)


def test_a_triton_ends_with_the_driver_whatever_ends_that(
    two_nodes: tuple[Any, Any], repositories: Callable[[FormatName], Path], motion_files: dict[str, Path]
) -> None:
    cluster, _ = two_nodes
    before = tritons()
    arguments = [cluster.address, str(repositories("onnx")), str(motion_files["still"])]
    with subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "row\n"
        assert tritons() - before
        driver.send_signal(signal.SIGKILL)
    assert wait_for(lambda: tritons() <= before)


def test_a_node_may_die(two_nodes: tuple[Any, Any], motion_url: str, make_rows: Any, tmp_path: Path) -> None:
    import ray

    cluster, second = two_nodes
    removed: list[float] = []

    def remove_a_node() -> None:
        if wait_for(lambda: len(list(tmp_path.glob("part-*"))) > 3, seconds=300):
            cluster.remove_node(second, allow_graceful=False)
            removed.append(time.monotonic())

    killer = threading.Thread(target=remove_a_node)
    killer.start()
    dataset = ray.data.from_items(make_rows(300))
    summary = run_job(dataset, "motion", motion_url, out=str(tmp_path), **QUICK)
    ended = time.monotonic()
    killer.join()
    assert removed
    assert removed[0] < ended
    assert summary.rows == 300
    check_rows(pq.read_table(tmp_path).to_pylist(), 300)
