"""Videos in object stores, and outputs there: memory:// and a real S3 server on this machine."""

import io
import json
import socket
import threading

import pytest
from typer.testing import CliRunner

from clipserve import DownloadLimits, EmptyVideo, VideoNotReadable, VideoTooLarge, read_entries
from clipserve.atomic_files import open_atomically
from clipserve.cancellation import Cancellation
from clipserve.command_line import build_app
from clipserve.errors import RequestCancelled
from clipserve.tables.embeddings import write_vectors
from tests.client.stored_videos import fill, names, read
from tests.object_stores import SECRET
from tests.watching import at_once

fsspec = pytest.importorskip("fsspec")


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_an_object_that_is_too_large_is_refused(memory, bucket, store):
    memory.pipe("/large.mp4", bytes(2000))
    bucket.put(**{"large.mp4": bytes(2000), "empty.mp4": b""})
    memory.pipe("/empty.mp4", b"")
    where = "memory://" if store == "memory" else f"s3://{bucket.name}/"
    with pytest.raises(VideoTooLarge, match="1,999 bytes that one download"):
        read(f"{where}large.mp4", limits=DownloadLimits(max_bytes=1999))
    assert len(read(f"{where}large.mp4", limits=DownloadLimits(max_bytes=2000))) == 2000
    with pytest.raises(EmptyVideo):
        read(f"{where}empty.mp4")


def test_a_large_object_comes_in_parts(bucket):
    content = bytes(range(256)) * 4096 * 40  # 40 MiB
    bucket.put(**{"large.mp4": content})
    assert read(f"s3://{bucket.name}/large.mp4") == content


def test_a_bucket_is_a_source(bucket):
    bucket.put(
        **{
            "v/1.mp4": b"1",
            "v/deep/2.mp4": b"2",
            "v/.x.mp4": b"",
            "v/notes.txt": b"",
            "labels.csv": b"path,label\nv/1.mp4,run\n",
        }
    )
    root = f"s3://{bucket.name}"
    assert names(f"{root}/v") == [f"{root}/v/1.mp4", f"{root}/v/deep/2.mp4"]
    assert names(root) == names(f"{root}/v")
    assert names(f"{root}/v/*.mp4") == [f"{root}/v/1.mp4"]
    assert names(f"{root}/**/2.*") == [f"{root}/v/deep/2.mp4"]
    (entry,) = read_entries(f"{root}/labels.csv")
    assert (entry.video, entry.label, read(entry.video)) == (f"{root}/v/1.mp4", "run", b"1")


def test_a_folder_that_was_listed_may_change(bucket):
    """In a process that goes on. fsspec keeps what a folder had."""
    bucket.put(**{"new/a.mp4": b"a"})
    assert names(f"s3://{bucket.name}/new/*.mp4") == [f"s3://{bucket.name}/new/a.mp4"]
    bucket.put(**{"new/a.mp4": b"longer", "new/b.mp4": b"b"})
    assert read(f"s3://{bucket.name}/new/a.mp4") == b"longer"
    assert read(f"s3://{bucket.name}/new/b.mp4") == b"b"
    assert len(names(f"s3://{bucket.name}/new/*.mp4")) == 2


def test_a_bucket_is_listed_as_far_as_it_is_needed(bucket):
    """A listing comes in pages of 1,000; a run over 10 million objects begins after the first."""
    bucket.fill([f"v/{number:05}.mp4" for number in range(2100)])
    entries = read_entries(f"s3://{bucket.name}/v")
    first = next(entries)
    assert first.id == f"s3://{bucket.name}/v/00000.mp4"
    bucket.put(**{"v/99999.mp4": b"x"})  # after the first page was read
    assert sum(1 for _ in entries) == 2100


def test_a_bucket_that_is_not_there_says_so(s3_server):
    (entry,) = read_entries("s3://no-such-bucket/videos/")
    assert isinstance(entry.video, VideoNotReadable)
    assert "no-such-bucket" in str(entry.video)
    with pytest.raises(VideoNotReadable, match="no such object"):
        read("s3://no-such-bucket/a.mp4")


def test_a_transfer_ends_when_it_is_cancelled(s3_server, monkeypatch):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
        cancellation = Cancellation()
        threading.Timer(0.3, cancellation.cancel).start()
        with at_once(), pytest.raises(RequestCancelled):
            read("s3://deaf-bucket/a.mp4", limits=DownloadLimits(seconds=400), cancellation=cancellation)
        with at_once(), pytest.raises(VideoNotReadable, match=r"longer than 0\.5 s"):
            read("s3://deaf-bucket/a.mp4", limits=DownloadLimits(seconds=0.5))


def test_rows_of_a_run_name_objects(connect, triton, memory):
    fill(memory)
    rows = list(connect().classify_many("memory://v"))
    assert [row.video for row in rows] == ["memory://v/2.mp4", "memory://v/10.mp4", "memory://v/deep/3.MOV"]
    assert sorted(triton.videos) == sorted([b"v/2.mp4", b"v/10.mp4", b"v/deep/3.MOV"])


def test_tables_and_vectors_are_written_to_a_bucket(connect, bucket):

    import numpy as np
    from pyarrow import parquet

    root = f"s3://{bucket.name}/results"
    table = connect().classify_many([b"video"] * 3, features=True).table()
    table.to_csv(f"{root}/t.csv")
    table.to_jsonl(f"{root}/t.jsonl")
    table.to_parquet(f"{root}/t.parquet")
    write_vectors(table.rows, f"{root}/v.npy")
    assert bucket.get("results/t.csv").decode().splitlines()[1].startswith("0,<bytes>,,archery")
    assert len(bucket.get("results/t.jsonl").splitlines()) == 3
    assert parquet.read_table(io.BytesIO(bucket.get("results/t.parquet"))).num_rows == 3
    assert np.load(io.BytesIO(bucket.get("results/v.npy"))).shape == (3, 8)
    assert bucket.get("results/v.csv").decode().startswith("id,video,label,truncated")


def test_an_output_that_fails_leaves_no_object(memory):
    class Failure(Exception):
        pass

    def write():
        with open_atomically("memory://out/a.txt") as file:
            file.write("half")
            raise Failure

    with pytest.raises(Failure):
        write()
    assert not memory.exists("/out/a.txt")


def test_an_output_that_the_store_refuses_is_an_error_that_names_it(s3_server):
    with (
        pytest.raises(OSError, match=r"s3://no-such-bucket/a\.csv") as caught,
        open_atomically("s3://no-such-bucket/a.csv") as file,
    ):
        file.write("x")
    assert SECRET not in str(caught.value)


def test_the_commands_read_and_write_a_bucket(triton, bucket):
    bucket.put(**{"v/1.mp4": b"1", "v/2.mp4": b"2"})
    root = f"s3://{bucket.name}"
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(
        build_app(), ["classify", f"{root}/v", "--json", "--url", triton.url]
    )
    assert shown.exit_code == 0, shown.stderr
    assert [json.loads(line)["file"] for line in shown.stdout.splitlines()] == [f"{root}/v/1.mp4", f"{root}/v/2.mp4"]
    done = CliRunner().invoke(
        build_app(), ["embed", f"{root}/v", "--out", f"{root}/out/f.parquet", "--url", triton.url]
    )
    assert done.exit_code == 0, done.stderr
    assert bucket.get("out/f.parquet").startswith(b"PAR1")
