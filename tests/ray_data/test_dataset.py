"""Datasets of videos through a real Ray on this machine, to a real Triton."""

import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from clipserve import InvalidRequest, UnknownModel, VideoClassifier
from clipserve.ray import classify, embed, run_job, run_timeline_job, timeline
from clipserve.ray.job import hold_folder
from clipserve.ray.results import ResultFolder
from tests.ray_data.rows import QUICK, check_rows
from tests.watching import wait_for

pytestmark = pytest.mark.long


def actors() -> list[psutil.Process]:
    """The processes of the actors that classify."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_rows_come_with_labels_and_failures_as_rows(local_ray: None, motion_url: str, make_rows: Any) -> None:
    """From a fleet of two, one of which is not there."""
    import ray

    dataset = ray.data.from_items(make_rows(60))
    rows = classify(dataset, "motion", [motion_url, "127.0.0.1:1"], features=True, **QUICK).take_all()
    check_rows(rows, 60)
    good = next(row for row in rows if row["error"] is None)
    assert (good["model"], good["model_version"], len(good["features"])) == ("motion", "1", 192)
    assert next(iter(good["labels"])) == good["label"]
    assert list(good["scores"]) == sorted(good["scores"], reverse=True)


def test_windows_come_as_rows_once_each_although_an_actor_dies(
    local_ray: None, motion_url: str, make_rows: Any, motion_files: dict[str, Path]
) -> None:
    """Each video has the windows that a client gets."""
    import ray

    windows = {"window": 0.5, "step": 0.25}
    videos = make_rows(60)
    killed: list[int] = []

    def kill_an_actor() -> None:
        wait_for(lambda: [killed.append(process.pid) or process.kill() for process in actors()[:1]])

    dataset = ray.data.from_items(videos)
    rows: list[dict[str, Any]] = []
    for batch in timeline(dataset, "motion", motion_url, batch_rows=4, **windows).iter_batches(batch_format="pyarrow"):
        if not rows:
            kill_an_actor()
        rows += batch.to_pylist()
    assert killed, "no actor was killed in the middle"
    with VideoClassifier("motion", motion_url) as classifier:
        expected = {
            label: [(one.index, one.start_seconds, one.end_seconds, one.top.label) for one in found]
            for label, path in motion_files.items()
            if label != "broken" and (found := list(classifier.timeline(path, **windows)))
        }
    for video in videos:
        found = [row for row in rows if row["id"] == video["id"]]
        if video["kind"] == "broken":
            assert [(row["window"], row["error"]) for row in found] == [(None, "not-a-video")]
        else:
            assert [(row["window"], row["start"], row["end"], row["label"]) for row in found] == expected[video["kind"]]
            assert {row["windows"] for row in found} == {len(found)}


def test_files_that_ray_reads_are_videos(
    local_ray: None, motion_url: str, motion_files: dict[str, Path], tmp_path: Path
) -> None:
    """As NeMo Curator reads them: `id` and `embedding`."""
    import ray

    folder = motion_files["still"].parent
    dataset = ray.data.read_binary_files(str(folder), include_paths=True)
    embed(dataset, "motion", motion_url, **QUICK).write_parquet(str(tmp_path))
    table = pq.read_table(tmp_path, columns=["id", "embedding", "error"]).to_pylist()
    assert sorted(Path(row["id"]).name for row in table) == sorted(path.name for path in motion_files.values())
    assert {len(row["embedding"] or ()) for row in table if row["error"] is None} == {192}
    assert [row["embedding"] for row in table if row["error"] == "not-a-video"] == [None]


def test_a_wrong_dataset_or_model_fails_the_job_with_the_error(
    local_ray: None, motion_url: str, make_rows: Any, tmp_path: Path
) -> None:
    import ray

    with pytest.raises(InvalidRequest, match="this one has 'file'"):
        classify(ray.data.from_items([{"file": "a"}]).materialize(), "motion", motion_url)
    with pytest.raises(UnknownModel, match="motion") as unknown:
        run_job(ray.data.from_items(make_rows(4)), "nope", motion_url, out=str(tmp_path / "nope"), **QUICK)
    assert "Traceback" not in str(unknown.value)
    with pytest.raises(InvalidRequest, match=r"node \S+: there is no model repository .*nowhere: .*\. Every"):
        run_job(
            ray.data.from_items(make_rows(4)),
            "motion",
            out=str(tmp_path / "nope"),  # which has no row of the other model
            embedded=True,
            repository=str(tmp_path / "nowhere"),
        )


def test_a_job_goes_on_where_it_ended_and_an_actor_may_die(
    local_ray: None, motion_url: str, make_rows: Any, tmp_path: Path
) -> None:
    import ray

    count = 300
    killed: list[int] = []

    def kill_an_actor() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            if any(tmp_path.glob("part-*")):
                for process in actors()[:1]:
                    process.kill()
                    killed.append(process.pid)
            time.sleep(0.02)

    options = {"model": "motion", "url": motion_url, "out": str(tmp_path), **QUICK}
    first = run_job(ray.data.from_items(make_rows(100)), **options)
    assert (first.done_before, first.rows, first.failed) == (0, 100, {"not-a-video": 10})
    killer = threading.Thread(target=kill_an_actor)
    for path in tmp_path.glob("part-*"):
        path.rename(tmp_path / f"kept-{path.name}")
    killer.start()
    second = run_job(ray.data.from_items(make_rows(count)), **options)
    killer.join()
    assert killed, "no actor was killed in the middle"
    assert (second.done_before, second.rows) == (100, count - 100)
    check_rows(pq.read_table(tmp_path).to_pylist(), count)
    third = run_job(ray.data.from_items(make_rows(count)), **options)
    assert (third.done_before, third.rows) == (count, 0)


def test_a_job_of_timelines_goes_on_with_the_videos_that_lack_windows(
    local_ray: None, motion_url: str, make_rows: Any, tmp_path: Path
) -> None:
    import ray

    options = {"model": "motion", "url": motion_url, "out": str(tmp_path), "window": 0.5, "step": 0.25, "batch_rows": 4}
    first = run_timeline_job(ray.data.from_items(make_rows(20)), **options)
    assert (first.done_before, first.rows, first.failed) == (0, 20, {"not-a-video": 2})
    whole = pq.read_table(tmp_path).to_pylist()
    torn = next(path for path in sorted(tmp_path.glob("part-*")) if len(pq.read_table(path)) > 4)
    pq.write_table(pq.read_table(torn).slice(0, len(pq.read_table(torn)) - 1), torn)
    second = run_timeline_job(ray.data.from_items(make_rows(30)), **options)
    assert (second.done_before, second.rows) == (19, 11)
    rows = pq.read_table(tmp_path).to_pylist()

    def list_windows(rows: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
        return sorted((row["id"], -1 if row["window"] is None else row["window"], row["label"] or "") for row in rows)

    known = {row["id"] for row in whole}
    assert list_windows([row for row in rows if row["id"] in known]) == list_windows(whole)
    assert {row["id"] for row in rows} == {f"video-{number}" for number in range(30)}
    third = run_timeline_job(ray.data.from_items(make_rows(30)), **options)
    assert (third.done_before, third.rows) == (30, 0)
    with pytest.raises(InvalidRequest, match=r"step 0\.25, now 1\.0"):
        run_timeline_job(ray.data.from_items(make_rows(1)), **{**options, "step": 1.0})


def test_two_jobs_do_not_write_to_one_folder(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipserve.ray.job.HELD_SECONDS", 1.0)
    folder = ResultFolder(str(tmp_path))
    with hold_folder(folder):
        with pytest.raises(InvalidRequest, match="another job of this cluster writes to"), hold_folder(folder):
            pass
        with hold_folder(ResultFolder(str(tmp_path / "other"))):
            pass
    with hold_folder(folder):
        pass
