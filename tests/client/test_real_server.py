"""The first steps of a new user, on a real Triton: a folder, a model, a table."""

import asyncio

import numpy as np
import pytest

from clipserve import AsyncVideoClassifier, NotAVideo, VideoClassifier


@pytest.fixture
def folder(motion_videos, tmp_path):
    """Four motions named after what they show, and a file that is no video."""
    for video in motion_videos.iterdir():
        (tmp_path / video.name).symlink_to(video)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    return tmp_path


def check(table, folder):
    assert [row.video for row in table] == [
        str(folder / f"{name}.mp4") for name in ("broken", "growing", "moving left", "moving right", "still")
    ]
    assert isinstance(table[0].error, NotAVideo)
    for row in table.rows[1:]:
        assert f"{row.prediction.top.label}.mp4" in row.video


def test_a_folder_with_a_broken_file_becomes_a_table(motion_url, folder, capsys):
    with VideoClassifier("motion", motion_url) as classifier:
        table = classifier.classify_many(folder, parallel=5).table()
    table.show()
    check(table, folder)
    assert "4 classified, 1 failed (1 NotAVideo)" in capsys.readouterr().out


def test_the_async_classifier_returns_the_same_table(motion_url, folder):
    async def classify():
        async with AsyncVideoClassifier("motion", motion_url) as classifier:
            return await classifier.classify_many(folder).table()

    check(asyncio.run(classify()), folder)


def test_a_list_with_labels_goes_through_to_the_rows(motion_url, folder):
    (folder / "labels.csv").write_text("id,path,label\n1,still.mp4,still\n2,growing.mp4,growing\n")
    with VideoClassifier("motion", motion_url) as classifier:
        rows = list(classifier.classify_many(folder / "labels.csv"))
    assert [(row.id, row.prediction.top.label == row.label) for row in rows] == [("1", True), ("2", True)]


def test_embeddings_are_the_features_of_each_video(motion_url, folder):
    with VideoClassifier("motion", motion_url) as classifier:
        embeddings = classifier.embed(folder)
        features = [classifier.classify(video, features=True).features for video in embeddings.videos]
    assert embeddings.vectors.shape == (4, 192)
    np.testing.assert_allclose(embeddings.vectors, np.stack(features), rtol=1e-4, atol=1e-5)


def test_more_videos_at_once_than_the_server_takes_all_come_through(motion_url, motion_videos):
    video = (motion_videos / "still.mp4").read_bytes()
    with VideoClassifier("motion", motion_url) as classifier:
        table = classifier.classify_many([video] * 150, parallel=100).table()
    assert (len(table), table.failures) == (150, [])
