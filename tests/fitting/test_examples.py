"""Which videos count, and which labels cannot make a head."""

from pathlib import Path

import numpy as np
import pytest

from clipserve.errors import InvalidRequest
from clipserve.evaluation.ground_truth import LabelledVideo
from clipserve.fitting import fit
from clipserve.fitting.examples import Examples, LabelledVectors, list_classes
from clipserve.tables.embeddings import StoredVectors


def make_videos(*labels: str) -> tuple[LabelledVideo, ...]:
    return tuple(
        LabelledVideo(str(place), f"{place}.mp4", tuple(label.split("|"))) for place, label in enumerate(labels)
    )


def make_vectors(videos: tuple[LabelledVideo, ...], vectors: np.ndarray | None = None) -> LabelledVectors:
    count = len(videos)
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32) if vectors is None else vectors
    return LabelledVectors(videos, range(count), vectors, [], [1.0] * count, [False] * count)


def test_spellings_of_a_class_are_one_class_by_the_most_frequent() -> None:
    classes, indices = list_classes(make_videos("push up", "Push_up", "jump", "push  up", "jump"))
    assert classes == ("jump", "push up")
    assert indices == [1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["run"] * 6, "all 6 videos have the label 'run', but a fit needs at least two classes"),
        (["run"] * 6 + ["jump"] * 2, "each class needs 3 videos or more.*'jump' has 2. Add videos"),
        (["run|jump"] + ["run"] * 5, "1 of 6 videos have several labels .'0'."),
    ],
)
def test_labels_that_cannot_make_a_head_are_refused_in_a_sentence(labels: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Examples.select(make_vectors(make_videos(*labels)))


def test_copies_of_a_video_count_once_and_say_so() -> None:
    videos = make_videos(*["run", "jump"] * 4)
    vectors = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    vectors[2], vectors[5] = vectors[0], vectors[4]
    examples = Examples.select(make_vectors(videos, vectors))
    assert examples.positions.tolist() == [0, 1, 3, 4, 6, 7]
    same, contradiction = examples.failures
    assert (same.id, same.code, same.message) == ("2", "copy", "has the same features as '0', which counts")
    assert "with the label 'run', and not 'jump'" in contradiction.message


def test_too_few_videos_that_count_name_a_video_that_does_not() -> None:
    videos = make_videos(*["run"] * 3, *["jump"] * 3)
    vectors = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    vectors[5] = vectors[4]
    with pytest.raises(
        InvalidRequest, match=r"'jump' has 2.*1 videos were left out, such as '5': has the same features"
    ):
        Examples.select(make_vectors(videos, vectors))


def test_stored_vectors_are_found_by_id() -> None:
    stored = StoredVectors(
        np.eye(4, dtype=np.float32), ["d", "c", "b", "a"], ["d", "c", "b", "a"], [None] * 4, [False] * 4
    )
    labelled = [LabelledVideo(name, name, ("run",)) for name in ("a", "b", "x")]
    found = LabelledVectors.look_up(stored, labelled)
    assert found.vectors.tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]
    assert [(failure.id, failure.code) for failure in found.failures] == [("x", "no-features")]
    with pytest.raises(InvalidRequest, match="these vectors have no labels"):
        LabelledVectors.look_up(stored, None)
    with pytest.raises(InvalidRequest, match="no labelled video has one of the 4 vectors"):
        LabelledVectors.look_up(stored, labelled[2:])


def test_an_id_that_stands_for_two_videos_matches_no_wrong_vector() -> None:
    ids, videos, labels = ["0", "1", "0"], ["a/0.mp4", "a/1.mp4", "b/0.mp4"], ["run", "jump", "swim"]
    stored = StoredVectors(np.eye(3, dtype=np.float32), ids, videos, labels, [False] * 3)
    assert LabelledVectors.look_up(stored, None).vectors.tolist() == np.eye(3).tolist()
    labelled = [LabelledVideo(id, video, ("run",)) for id, video in zip(ids, videos, strict=True)]
    once = StoredVectors(stored.vectors[:2], ids[:2], videos[:2], labels[:2], [False] * 2)
    for vectors, given in ((stored, labelled[:2]), (once, labelled)):
        with pytest.raises(InvalidRequest, match=r"'a/0.mp4' and 'b/0.mp4' have the same id, '0'"):
            LabelledVectors.look_up(vectors, given)
    # The same video may be there twice.
    assert LabelledVectors.look_up(once, [labelled[0], labelled[0]]).vectors.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_values_that_are_no_numbers_are_rows_of_the_report() -> None:
    vectors = np.ones((2, 3), np.float32)
    vectors[1, 0] = np.nan
    stored = StoredVectors(vectors, ["a", "b"], ["a", "b"], ["run", "jump"], [False, False])
    (failure,) = LabelledVectors.look_up(stored, None).failures
    assert (failure.id, failure.code) == ("b", "bad-features")


@pytest.mark.parametrize("given", ["folder", "list"])
def test_a_source_without_a_video_is_refused_before_anything_is_sent(given: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.csv").write_text("path,label\n,run\n,jump\n")
    source = tmp_path / "folder" if given == "folder" else tmp_path / "list.csv"
    with pytest.raises(InvalidRequest, match="there is no video to fit to"):
        fit(source, on="motion", name="mine", url="localhost:1", publish=False)
