"""Videos with ids for Ray, and a real Ray: on this machine alone, or with two nodes on it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.data", reason="needs pip install 'clipserve[ray]'")

from clipserve_export.motion.videos import write_motion_video

LABELS = ("bouncing", "moving left", "growing", "still")
BROKEN = "broken"


@pytest.fixture(scope="session")
def motion_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video of each label, by label; and one that is none."""
    folder = tmp_path_factory.mktemp("ray")
    files = {label: folder / f"{label.replace(' ', '_')}.mp4" for label in LABELS}
    for seed, (label, path) in enumerate(files.items(), 1):
        write_motion_video(path, label, seed, width=160, height=120)
    files[BROKEN] = folder / "broken.mp4"
    files[BROKEN].write_bytes(b"no video" * 100)
    return files


@pytest.fixture(scope="session")
def make_rows(motion_files: dict[str, Path]) -> Any:
    """`make_rows(n)`: so many rows with id, path and what is in the video; one of ten is broken."""
    kinds = [*LABELS, *LABELS, LABELS[0], BROKEN]

    def make(count: int) -> list[dict[str, str]]:
        chosen = [kinds[number % len(kinds)] for number in range(count)]
        return [{"id": f"video-{n}", "path": str(motion_files[kind]), "kind": kind} for n, kind in enumerate(chosen)]

    return make


@pytest.fixture(scope="session", autouse=True)
def quiet_ray() -> Iterator[None]:
    """Ray tells nobody that it runs, and prints no progress."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        # Workers import the tests' modules, and start no dashboard.
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])))
        yield


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray on this machine."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes on this machine, and the one of them that the last test ends."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()
