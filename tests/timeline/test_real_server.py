"""Timelines of a real Triton: films joined from generated motions whose boundaries are known."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clipserve import AsyncVideoClassifier, InvalidRequest, NotAVideo, UnknownModel, VideoClassifier, segments
from clipserve_export.formats import FormatName
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import held_scene, write_video
from clipserve_server.triton import Triton
from tests.decode.synthesis import repeat
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton
from tests.watching import server_of, wait_for

MOTION_SECONDS, FPS = 2, 30
# Each label for three motions in a row, so for six seconds.
SAME_LABEL = 3


@pytest.fixture(scope="module")
def triton(repositories: Callable[[FormatName], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that serves `motion` and timelines."""
    folder = tmp_path_factory.mktemp("timelines")
    repository = copy_model(repositories("onnx"), folder / "repository", timeline=True)
    with KilledTriton(repository, log=folder / "triton.log", **ANY_PORTS) as running:
        yield running


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 motions, 72 seconds: every label for six seconds."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"

    def render() -> Iterator[np.ndarray]:
        for number in range(SAME_LABEL * len(LABELS)):
            scene = held_scene(LABELS[number // SAME_LABEL], UNSEEN_SEED + number)
            for moment in np.linspace(0.0, 1.0, MOTION_SECONDS * FPS):
                yield scene.render(np.array([moment]), 160, 120)[0]

    write_video(path, render(), fps=FPS, options={"preset": "ultrafast", "g": "60"})
    return path


def check_labels(windows, parts):
    """Label right in at least 95 % of the windows, each boundary within one step."""
    right = [window.top.label == LABELS[window.index // SAME_LABEL % len(LABELS)] for window in windows]
    assert len(windows) == parts * SAME_LABEL
    assert np.mean(right) >= 0.95
    found = segments(windows, enter=0.5, min_length=2.5, max_gap=2)
    seconds = SAME_LABEL * MOTION_SECONDS
    for number in range(parts):
        label, begin, end = LABELS[number % len(LABELS)], number * seconds, (number + 1) * seconds
        assert any(
            part.label == label
            and abs(part.start_seconds - begin) <= MOTION_SECONDS
            and abs(part.end_seconds - end) <= MOTION_SECONDS
            for part in found
        ), (label, begin, end)


def test_labels_and_boundaries_of_joined_motions_are_right(triton, film):
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        timeline = classifier.timeline(film, window=MOTION_SECONDS, step=MOTION_SECONDS)
        check_labels(list(timeline), len(LABELS))
    assert timeline.facts.duration_seconds == pytest.approx(72)
    assert timeline.facts.windows_total == 36


@pytest.mark.long
def test_labels_and_boundaries_of_an_hour_are_right(triton, film):
    hour = repeat(film.read_bytes(), 50)
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        windows = list(classifier.timeline(hour, window=MOTION_SECONDS, step=MOTION_SECONDS))
    check_labels(windows, 50 * len(LABELS))


def test_each_window_is_what_classify_says_about_it(triton, film):
    options = {"features": True, "top_k": 12, "sampling": "clip"}
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        windows = list(classifier.timeline(film, window=1.5, step=7, start=3, **options))
        assert len(windows) == 10
        for window in windows:
            alone = classifier.classify(film, start=window.start_seconds, end=window.end_seconds, **options)
            assert np.array_equal(alone.features, window.features)
            assert [scored.label for scored in alone] == [scored.label for scored in window]
            assert [scored.score for scored in alone] == pytest.approx([scored.score for scored in window], abs=1e-6)
            assert np.array_equal(np.sort(window.scores)[::-1], np.float32([scored.score for scored in window]))


def test_asyncio_gives_the_same(triton, film):
    async def collect():
        async with AsyncVideoClassifier("motion", triton.grpc_url) as classifier:
            return [window async for window in classifier.timeline(film, window=4, step=3)]

    with VideoClassifier("motion", triton.grpc_url) as classifier:
        expected = list(classifier.timeline(film, window=4, step=3))
    windows = asyncio.run(collect())
    assert windows == expected
    assert all(np.array_equal(one.scores, two.scores) for one, two in zip(windows, expected, strict=True))


def test_a_timeline_goes_on_where_it_stopped(triton, film):
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        whole = list(classifier.timeline(film))
        assert [window.index for window in whole] == list(range(72))
        with classifier.timeline(film) as begun:
            windows = [next(begun) for _ in range(20)]
        windows += classifier.timeline(film, first_window=20)
        assert windows == whole
        assert list(classifier.timeline(film, first_window=72)) == []


def test_the_errors_of_the_server_have_their_types(triton, film):
    with VideoClassifier("motion", triton.grpc_url) as classifier:
        with pytest.raises(NotAVideo):
            list(classifier.timeline(b"no video at all"))
        with pytest.raises(InvalidRequest, match="the video ends at 72"):
            list(classifier.timeline(film, start=500))
    with VideoClassifier("nothing", triton.grpc_url) as classifier, pytest.raises(UnknownModel, match="it has motion"):
        list(classifier.timeline(film))


@pytest.mark.long
def test_a_file_loses_nothing_when_client_and_server_are_killed(triton, film, tmp_path):
    long = tmp_path / "long.mp4"
    long.write_bytes(repeat(film.read_bytes(), 8))
    out = tmp_path / "windows.jsonl"
    command = [sys.executable, "-c", "from clipserve.command_line import main; main()", "timeline", str(long)]
    command += ["--out", str(out), "--model", "motion", "--step", "0.5", "--window", "1"]

    def count() -> int:
        return out.read_text().count("\n") if out.exists() else 0

    repository = copy_model(triton.repository, tmp_path / "repository", timeline=True)
    first = Triton(repository, log=tmp_path / "first.log", **ANY_PORTS)
    first.start()
    command += ["--url", first.grpc_url]
    client = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: count() > 50)
    client.kill()
    client.wait()
    before = count()
    client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: count() > before + 100)
    server_of(first).kill()
    first.stop()
    ports = {**ANY_PORTS, "grpc_port": int(first.grpc_url.rpartition(":")[2])}
    with Triton(repository, log=tmp_path / "second.log", **ports):
        _, text = client.communicate(timeout=120)
    assert client.returncode == 0, text
    *windows, end = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["window"] for line in windows] == list(range(8 * 144))
    assert end["windows"] == 8 * 144
