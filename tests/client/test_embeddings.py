"""Feature vectors in bulk, in memory and in files."""

import csv
import threading
from unittest.mock import MagicMock

import grpc
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clipserve import AsyncVideoClassifier, InvalidRequest, Row, Table, UnexpectedAnswer, VideoClassifier
from clipserve.atomic_files import open_atomically
from clipserve.command_line import build_app
from clipserve.fitting.examples import LabelledVectors
from clipserve.sources.videos import read_video
from clipserve.tables.embeddings import read_vectors, write_vectors
from tests.client.fake_triton import FakeTriton


@pytest.fixture
def source(triton, tmp_path):
    triton.failures_by_content[b"broken"] = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no")
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        (tmp_path / name).write_bytes(b"broken" if name == "2.mp4" else name.encode())
    return tmp_path


def test_embed_keeps_the_defaults_of_a_subclass(triton):
    class ClipClassifier(VideoClassifier):
        def classify_many(self, source, **options):
            return super().classify_many(source, **{"sampling": "clip", **options})

    with ClipClassifier("x3d_m", triton.url) as classifier:
        assert len(classifier.embed([b"video"])) == 1
        assert len(classifier.embed([b"video"], sampling="clip", views=2)) == 1
    assert [request.parameters["policy"].string_param for request in triton.requests] == ["clip", "clip"]


def test_vectors_are_one_array_and_failures_are_beside_it(connect, source):
    embeddings = connect().embed(source)
    assert (embeddings.vectors.shape, embeddings.vectors.dtype) == ((2, 8), np.float32)
    assert embeddings.videos == [str(source / "1.mp4"), str(source / "3.mp4")]
    assert [row.error.code for row in embeddings.failures] == ["not-a-video"]
    np.testing.assert_array_equal(np.asarray(embeddings), embeddings.vectors)


def test_a_kept_failure_is_a_row_of_nan(connect, source):
    embeddings = connect().embed(source, on_error="keep")
    assert np.isnan(embeddings.vectors).all(axis=1).tolist() == [False, True, False]


async def test_many_batches_may_be_embedded_at_once(triton):
    async with AsyncVideoClassifier("x3d_m", triton.url) as classifier:
        assert (await classifier.embed([b"a", b"b"])).vectors.shape == (2, 8)


@pytest.mark.parametrize("count", [0, 1, 9, 12_345])
def test_an_npy_grows_row_by_row_and_reads_back(make_row, tmp_path, count):
    assert write_vectors((make_row(number) for number in range(count)), tmp_path / "x.npy") == count
    vectors = np.load(tmp_path / "x.npy")
    assert vectors.shape == ((count, 4) if count else (0, 0))
    assert vectors.ravel()[::4].tolist() == list(range(count))
    with (tmp_path / "x.csv").open(newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == list(map(str, range(count)))


@pytest.mark.parametrize("count", [0, 1, 1024, 2500])
def test_a_parquet_reads_back(make_row, tmp_path, count):
    write_vectors((make_row(number) for number in range(count)), tmp_path / "x.parquet")
    frame = pandas.read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns) == ["id", "video", "label", "truncated", "features"]
    assert [vector[0] for vector in frame.features] == list(range(count))


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_a_run_that_ends_in_the_middle_leaves_no_half_file(make_row, tmp_path, name):
    def break_off():
        yield make_row(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_vectors(break_off(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_a_model_that_is_replaced_during_a_run_leaves_no_file_of_mixed_vectors(triton, tmp_path, name):
    rows = []
    with VideoClassifier("x3d_m", triton.url) as classifier:
        for size in (8, 9):
            triton.features = np.zeros(size, np.float32)
            rows += classifier.classify_many([b"video"], features=True)
    with pytest.raises(UnexpectedAnswer, match="have 9 values, and those before had 8: the server replaced the model"):
        write_vectors(rows, tmp_path / name)
    with pytest.raises(UnexpectedAnswer, match="the server replaced the model"):
        _ = Table(rows).features
    stream = MagicMock(**{"__iter__.return_value": iter(rows)})
    with pytest.raises(UnexpectedAnswer, match="the server replaced the model"):
        LabelledVectors.collect(stream, ())
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"\.npy or \.parquet"):
        write_vectors([], tmp_path / "x.txt")


@pytest.mark.parametrize("place", ["{folder}/", "memory://vectors/"])
def test_the_list_of_the_videos_is_not_replaced_by_the_names_of_the_vectors(make_row, tmp_path, place):
    place = place.format(folder=tmp_path)
    with open_atomically(f"{place}labels.csv") as file:
        file.write("path,label\n1.mp4,archery\n")
    with pytest.raises(InvalidRequest, match=r"labels\.csv' is to name the rows of the vectors, but there is another"):
        write_vectors([make_row(1)], f"{place}labels.npy")
    assert read_video(f"{place}labels.csv").content == b"path,label\n1.mp4,archery\n"
    for _ in range(2):  # its own file may be replaced
        assert write_vectors([make_row(1)], f"{place}vectors.npy") == 1


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("place", ["{folder}/", "memory://{folder}/"])
def test_what_was_written_is_read_from_a_folder_or_a_store(make_row, tmp_path, place, suffix):
    path = place.format(folder=tmp_path) + "vectors" + suffix
    with pytest.raises(InvalidRequest, match=r"(?i)does not have the vectors of `clipserve embed`: .*no such"):
        read_vectors(path)
    row = make_row(1)
    write_vectors([row], path)
    stored = read_vectors(path)
    assert (stored.ids, stored.videos, stored.labels, stored.truncated) == ([row.id], [row.video], [row.label], [False])
    np.testing.assert_array_equal(stored.vectors, [row.prediction.features])


def test_vectors_and_names_of_two_runs_are_no_pair(make_row, tmp_path):
    """As they lie in a store if the upload of the second file fails."""
    path = tmp_path / "x.npy"
    write_vectors([make_row(1), make_row(2)], path)
    older = path.read_bytes()
    write_vectors([make_row(1), make_row(3)], path)
    assert list(read_vectors(path).ids) == ["1", "3"]
    path.write_bytes(older)
    with pytest.raises(InvalidRequest, match="are not of one run, as the vector of '3' shows: write both again"):
        read_vectors(path)


@pytest.mark.parametrize(
    ("vectors", "names"),
    [(b"", "1,1.mp4,,False"), (b"PK\3\4", "1,1.mp4,,False"), (None, "1"), (None, f"{'1' * 200_000},1.mp4,,False")],
)
def test_damaged_vectors_are_an_error_of_their_file(tmp_path, vectors, names):
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    if vectors is not None:
        (tmp_path / "x.npy").write_bytes(vectors)
    (tmp_path / "x.csv").write_text(f"id,video,label,truncated\n{names}\n")
    with pytest.raises(InvalidRequest, match=r"x\.npy' (does not have the vectors|has the video None)"):
        read_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize("change", [{"id": [None]}, {"video": [None]}, {"label": [0]}])
def test_names_of_vectors_that_are_no_texts_are_named(make_row, tmp_path, change):
    write_vectors([make_row(1)], tmp_path / "x.parquet")
    columns = pq.read_table(tmp_path / "x.parquet").to_pydict() | change
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    ((column, (value,)),) = change.items()
    with pytest.raises(InvalidRequest, match=f"has the {column} {value}, which is no text"):
        read_vectors(tmp_path / "x.parquet")


@pytest.fixture
def make_row(connect):
    prediction = connect().classify(b"video", features=True)

    def make(number):
        vector = np.full(4, number, np.float32)
        return Row(str(number), "clip.mp4", type(prediction)(prediction.labels, "x3d_m", "clip.mp4", features=vector))

    return make


def test_the_command_writes_a_file_and_reports_failures(triton, source, tmp_path):
    triton.truncated = {b"3.mp4"}
    out = tmp_path / "x.npy"
    result = CliRunner().invoke(build_app(), ["embed", str(source), "--out", str(out), "--url", triton.url])
    assert result.exit_code == 1
    assert np.load(out).shape == (2, 8)
    assert "2.mp4': no" in result.stderr
    assert f"{out}: 2 vectors, 1 of them truncated; 1 failed" in result.stderr
    with out.with_suffix(".csv").open(newline="") as file:
        assert [line["truncated"] for line in csv.DictReader(file)] == ["False", "True"]


def test_the_command_without_a_server_writes_nothing(free_port, source, tmp_path):
    arguments = ["embed", str(source), "--out", str(tmp_path / "x.npy"), "--url", f"localhost:{free_port}"]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 2
    assert "clipserve serve" in result.stderr
    assert not (tmp_path / "x.npy").exists()


def test_the_command_waits_for_a_server_that_is_starting(start, free_port, source, tmp_path):
    threading.Timer(1.0, lambda: start(FakeTriton(), port=free_port)).start()
    arguments = ["embed", str(source), "--out", str(tmp_path / "x.npy"), "--url", f"localhost:{free_port}"]
    assert CliRunner().invoke(build_app(), [*arguments, "--retry-seconds", "60"]).exit_code == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 8)


def test_the_command_without_a_video_leaves_older_vectors_alone(triton, source, tmp_path):
    def embed(given):
        arguments = ["embed", str(given), "--out", str(tmp_path / "x.npy"), "--url", triton.url]
        return CliRunner().invoke(build_app(), arguments).exit_code

    assert embed(source / "1.mp4") == 0
    (tmp_path / "list.csv").write_text("path\n")
    assert embed(tmp_path / "list.csv") == 2
    assert np.load(tmp_path / "x.npy").shape == (1, 8)


def test_a_model_without_an_embedding_says_so(connect, triton):
    # Word for word what Triton 2.51 says.
    triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "unexpected inference output 'FEATURES' for model 'x3d_m'")
    with pytest.raises(InvalidRequest, match="'x3d_m' has no embedding, and the request asks for features: leave"):
        connect().classify(b"video", features=True)
    assert "has no embedding" in str(connect().embed([b"video"]).failures[0].error)
