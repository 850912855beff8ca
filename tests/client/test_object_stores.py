"""Videos in object stores and archives: memory://, zip:// and a real S3 server on this machine."""

import io
import json
import logging
import socket
import tarfile
import threading
import zipfile

import pytest
from typer.testing import CliRunner

from clipserve import DownloadLimits, EmptyVideo, InvalidRequest, VideoNotReadable, VideoTooLarge, read_entries
from clipserve.atomic_files import open_atomically
from clipserve.cancellation import Cancellation
from clipserve.command_line import build_app
from clipserve.errors import RequestCancelled
from clipserve.sources.folders import Skipped
from clipserve.sources.remote_paths import RemotePath, is_remote
from clipserve.sources.videos import read_video
from clipserve.tables.embeddings import write_vectors
from tests.object_stores import SECRET
from tests.watching import HANG_SECONDS, at_once

fsspec = pytest.importorskip("fsspec")


def names(source, skipped=None):
    return [entry.id for entry in read_entries(source, skipped)]


def read(source, **options):
    return read_video(source, **options).content


# ---- the address -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["s3://b/k", "gs://b", "hf://datasets/a/b", "zip://a.mp4::s3://b/c.zip", "S3://b/k"]
)
def test_an_address_of_a_store_is_one(address):
    assert is_remote(address)


@pytest.mark.parametrize(
    "path", ["http://a/b.mp4", "HTTPS://a/b.mp4", "a/b.mp4", "a::b.mp4", "c:/b.mp4", "", "://", b"s3://"]
)
def test_anything_else_is_none(path):
    assert not is_remote(path)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sftp://me:pass@host/a.mp4", "sftp://host/a.mp4"),
        ("zip://a.mp4::https://me:pass@host/a.zip", "zip://a.mp4::https://host/a.zip"),
        (
            "zip://a.mp4::https://host/a.zip?X-Amz-Signature=abc&x=1",
            "zip://a.mp4::https://host/a.zip?X-Amz-Signature=...&x=1",
        ),
        ("s3://AKIA:sec/ret+key@bucket/a.mp4", "s3://bucket/a.mp4"),
        ("zip://a.mp4::s3://AKIA:sec/ret@bucket/a.zip", "zip://a.mp4::s3://bucket/a.zip"),
        ("sftp://me:pass@host:22/a@b.mp4", "sftp://host:22/a@b.mp4"),
        ("abfs://a@b/c.mp4?access_token=abc&client_secret=def", "abfs://b/c.mp4?access_token=...&client_secret=..."),
    ],
)
def test_credentials_are_not_shown(address, shown):
    assert RemotePath.parse(address).shown == shown


@pytest.mark.parametrize(
    "address",
    [
        "hf://datasets/me/some@main/a.mp4",
        "zip://cam1@2026.mp4::s3://bucket/a.zip",
        "s3://bucket/a@b.mp4",
        "sftp://host:22/a@b.mp4",
        "s3://bucket/key=1/token=2/a.mp4",
    ],
)
def test_what_tells_two_objects_apart_is_shown(address):
    """Rows of a job are told apart by it."""
    assert RemotePath.parse(address).shown == address


# ---- what an address stands for ----------------------------------------------------------------------------


def fill(store):
    for name in ("v/10.mp4", "v/2.mp4", "v/deep/3.MOV", "v/.hidden.mp4", "v/.cache/4.mp4", "v/notes.txt", "w/5.mp4"):
        store.pipe(f"/{name}", name.encode())


def test_a_folder_stands_for_its_videos(memory):
    fill(memory)
    skipped = Skipped()
    assert names("memory://v", skipped) == ["memory://v/2.mp4", "memory://v/10.mp4", "memory://v/deep/3.MOV"]
    assert skipped.hidden == 1
    assert skipped.files == {".txt": 1}
    assert names("memory://v/") == names("memory://v")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("memory://v/*.mp4", ["memory://v/2.mp4", "memory://v/10.mp4"]),
        ("memory://*/?.mp4", ["memory://v/2.mp4", "memory://w/5.mp4"]),
        ("memory://**/[35].*", ["memory://v/deep/3.MOV", "memory://w/5.mp4"]),
        ("memory://v/**", ["memory://v/2.mp4", "memory://v/10.mp4", "memory://v/deep/3.MOV", "memory://v/notes.txt"]),
        ("memory://v/de*", ["memory://v/deep/3.MOV"]),
        ("memory://*/deep/3.MOV", ["memory://v/deep/3.MOV"]),
        ("memory://**/de*", ["memory://v/deep/3.MOV"]),
        ("memory://**/[vd]*", ["memory://v/2.mp4", "memory://v/10.mp4", "memory://v/deep/3.MOV"]),
    ],
)
def test_a_pattern_stands_for_what_it_matches(memory, pattern, found):
    fill(memory)
    assert sorted(names(pattern)) == sorted(found)


@pytest.mark.parametrize("between", ["*", "**"])
def test_a_pattern_passes_folders_that_lack_its_next_part(memory, bucket, between):
    keys = ["v/x/train/1.mp4", "v/y/other/2.mp4", "v/y/train.mp4", "v/z/train/3.mp4"]
    bucket.put(**dict.fromkeys(keys, b"x"))
    for key in keys:
        memory.pipe(f"/{key}", b"x")
    for root in ("memory://v", f"s3://{bucket.name}/v"):
        assert names(f"{root}/{between}/train/*.mp4") == [f"{root}/x/train/1.mp4", f"{root}/z/train/3.mp4"]
        assert names(f"{root}/{between}/train/**") == [f"{root}/x/train/1.mp4", f"{root}/z/train/3.mp4"]


def test_a_folder_that_is_missing_ahead_of_a_pattern_is_an_error(memory):
    fill(memory)
    for pattern in ("memory://v/none/*/deep/*.mp4", "memory://v/none/**/deep/*.mp4"):
        (entry,) = read_entries(pattern)
        assert "there is no such object" in str(entry.video)


@pytest.mark.parametrize("pattern", ["**/a/**/*.mp4", "**/**/*.mp4", "**/a/**"])
def test_a_pattern_that_matches_a_video_in_several_ways_gives_it_once(memory, pattern):
    for name in ("/b/a/a/z.mp4", "/b/a/y.mp4"):
        memory.pipe(name, b"x")
    assert sorted(names(f"memory://b/{pattern}")) == ["memory://b/a/a/z.mp4", "memory://b/a/y.mp4"]


def test_an_object_with_brackets_in_its_name_is_no_pattern(memory):
    memory.pipe("/v/[1].mp4", b"one")
    (entry,) = read_entries("memory://v/[1].mp4")
    assert read(entry.video) == b"one"


def test_what_is_not_there_is_a_failure_of_its_own(memory):
    fill(memory)
    for source in ("memory://v/none.mp4", "memory://x/*.mp4", "memory://w/deep*"):
        (entry,) = read_entries(source)
        with pytest.raises(VideoNotReadable, match=r"no such object|no object matches"):
            raise entry.video if isinstance(entry.video, Exception) else read_failure(entry.video)


def read_failure(video):
    with pytest.raises(VideoNotReadable) as caught:
        read(video)
    return caught.value


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_list_names_videos_beside_it_and_elsewhere(memory, name):
    rows = [
        ("a", "1.mp4", "run"),
        ("b", "deep/2.mp4", "jump"),
        ("c", "memory://other/3.mp4", "sit"),
        ("d", "http://h/4.mp4", ""),
    ]
    if name.endswith("csv"):
        text = "id,path,label\n" + "".join(",".join(row) + "\n" for row in rows)
    else:
        text = "".join(f'{{"id": "{id}", "path": "{path}", "label": "{label}"}}\n' for id, path, label in rows)
    memory.pipe(f"/lists/{name}", text.encode())
    entries = list(read_entries(f"memory://lists/{name}"))
    assert [entry.id for entry in entries] == ["a", "b", "c", "d"]
    assert [entry.video for entry in entries] == [
        "memory://lists/1.mp4",
        "memory://lists/deep/2.mp4",
        "memory://other/3.mp4",
        "http://h/4.mp4",
    ]
    assert [entry.label for entry in entries] == ["run", "jump", "sit", None]


def test_a_list_without_paths_is_refused(memory):
    memory.pipe("/labels.csv", b"id,label\n1,run\n")
    with pytest.raises(InvalidRequest, match=r"memory://labels\.csv' has no column 'path'"):
        read_entries("memory://labels.csv")
    with pytest.raises(InvalidRequest, match=r"cannot read the list 'memory://none\.csv'"):
        read_entries("memory://none.csv")


def test_a_local_list_names_objects(memory, tmp_path):
    memory.pipe("/a.mp4", b"bytes")
    (tmp_path / "labels.csv").write_text("path\nmemory://a.mp4\n")
    (entry,) = read_entries(tmp_path / "labels.csv")
    assert (entry.id, read(entry.video)) == ("memory://a.mp4", b"bytes")


# ---- archives ----------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "videos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("2.mp4", "10.mp4", "deep/1.mp4", "labels.csv", "read.me"):
            file.writestr(name, "path,label\ndeep/1.mp4,run\n" if name == "labels.csv" else name)
    return path


def test_an_archive_is_a_folder(archive):
    found = list(read_entries(f"zip://::{archive}"))
    assert [entry.id for entry in found] == [f"zip://{name}::{archive}" for name in ("2.mp4", "10.mp4", "deep/1.mp4")]
    assert [read(entry.video) for entry in found] == [b"2.mp4", b"10.mp4", b"deep/1.mp4"]
    assert names(f"zip://*.mp4::{archive}") == [f"zip://{name}::{archive}" for name in ("2.mp4", "10.mp4")]
    assert names(f"zip://deep::{archive}") == [f"zip://deep/1.mp4::{archive}"]
    (entry,) = read_entries(f"zip://labels.csv::{archive}")
    assert (read(entry.video), entry.label) == (b"deep/1.mp4", "run")


def test_names_that_tar_writes_begin_with_a_dot_and_are_not_hidden(tmp_path):
    """As of `tar -czf videos.tar.gz .`."""
    path = tmp_path / "videos.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name in ("./a.mp4", "./deep/b.mp4", "./.hidden.mp4", "./.cache/c.mp4"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode()))
    skipped = Skipped()
    both = [f"tar://./{name}::{path}" for name in ("a.mp4", "deep/b.mp4")]
    assert names(f"tar://::{path}", skipped) == both
    assert skipped.hidden == 1
    assert names(f"tar://**::{path}") == names(f"tar://**/*.mp4::{path}") == both
    assert names(f"tar://*.mp4::{path}") == both[:1]
    assert [read(address) for address in both] == [b"./a.mp4", b"./deep/b.mp4"]


def test_odd_names_in_an_archive_are_rows_of_their_own(tmp_path):
    path = tmp_path / "videos.zip"
    odd = ["a b", "日", "[1]", "a#b", "a?b", "a%20b", "x*y", "cam1@x", "cam2@x", "a\nb", "a:b", "key=1/v", "key=2/v"]
    with zipfile.ZipFile(path, "w") as file:
        for name in odd:
            file.writestr(f"{name}.mp4", name)
    found = list(read_entries(f"zip://::{path}"))
    assert len({entry.id for entry in found}) == len(odd)
    assert sorted(read(entry.video).decode() for entry in found) == sorted(odd)


def test_a_name_of_thousands_of_digits_hides_no_other(tmp_path):
    path = tmp_path / "videos.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("9" * 5000, "10", "9"):
            file.writestr(f"{name}.mp4", name)
    assert [read(entry.video) for entry in read_entries(f"zip://::{path}")] == [b"9", b"10", b"9" * 5000]


def test_threads_share_an_archive(archive):
    found = [entry.video for entry in read_entries(f"zip://::{archive}")] * 30
    contents = []
    threads = [threading.Thread(target=lambda v=v: contents.append(read(v))) for v in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(contents) == sorted([b"2.mp4", b"10.mp4", b"deep/1.mp4"] * 30)


def test_a_broken_archive_is_a_failure_of_its_own(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    for name in ("", "1.mp4", "**"):
        first, second = read_entries([f"zip://{name}::{tmp_path}/broken.zip", "other.mp4"])
        assert isinstance(first.video, VideoNotReadable)
        assert "not a zip file" in str(first.video)
        assert second.video == "other.mp4"
    with pytest.raises(VideoNotReadable, match="not a zip file"):
        read_entries(f"zip://labels.csv::{tmp_path}/broken.zip")
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as file:  # nothing of the failure is kept
        file.writestr("1.mp4", "1")
    assert read(f"zip://1.mp4::{tmp_path}/broken.zip") == b"1"


def test_an_address_that_its_store_does_not_understand_fails_alone():
    pytest.importorskip("huggingface_hub")
    first, second = read_entries(["hf://a:b/c.mp4", "other.mp4"])
    assert "cannot open 'hf://a:b/c.mp4'" in str(first.video)
    assert second.video == "other.mp4"


def test_an_archive_that_does_not_answer_delays_nothing_else(memory):
    memory.pipe("/v/1.mp4", b"1")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        archive = f"zip://1.mp4::http://127.0.0.1:{deaf.getsockname()[1]}/videos.zip"
        with (
            at_once(),
            pytest.raises(VideoNotReadable, match=r"longer than 0\.3 s; .* in Python, or download the file"),
        ):
            read(archive, limits=DownloadLimits(seconds=0.3))
        with at_once():
            assert read("memory://v/1.mp4") == b"1"
        cancellation = Cancellation()
        threading.Timer(0.3, cancellation.cancel).start()
        with at_once(), pytest.raises(RequestCancelled):
            read(archive, limits=DownloadLimits(seconds=400), cancellation=cancellation)


@pytest.mark.parametrize("name", ["a.mp4", "v/", "*.mp4"])
@pytest.mark.parametrize("secret", ["hidden", "hid/den"])
def test_a_secret_key_in_an_address_of_s3_appears_in_no_message(bucket, name, secret):
    (entry,) = read_entries(f"s3://KEY:{secret}@{bucket.name}/{name}")
    with pytest.raises(VideoNotReadable, match="its address no credentials") as raised:
        raise entry.video if isinstance(entry.video, Exception) else read_failure(entry.video)
    assert "hid" not in f"{entry.id} {raised.value}"


def test_a_secret_key_appears_in_no_message_about_vectors(bucket):
    with pytest.raises(InvalidRequest, match=r"got 's3://bucket/x\.txt'"):
        write_vectors([], "s3://KEY:hidden@bucket/x.txt")
    with pytest.raises(OSError, match="its address no credentials") as raised:
        write_vectors([], "s3://KEY:hidden@bucket/x.parquet")
    assert "hidden" not in str(raised.value)


# ---- limits ------------------------------------------------------------------------------------------------


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


# ---- S3 ----------------------------------------------------------------------------------------------------


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


def test_no_credentials_in_errors_and_logs(bucket, caplog):
    """The server refuses a key that does not exist."""
    caplog.set_level(logging.DEBUG, "clipserve")
    with pytest.raises(VideoNotReadable) as caught:
        read(f"s3://{bucket.name}/none.mp4")
    with pytest.raises(VideoNotReadable) as wrong:
        read("zip://a.mp4::https://me:sesame-street@127.0.0.1:1/a.zip")
    for error in (caught.value, wrong.value):
        assert error.__cause__ is None
        assert SECRET not in str(error)
        assert SECRET not in (error.video or "")
    assert SECRET not in caplog.text


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


# ---- what cannot be opened ---------------------------------------------------------------------------------


def test_an_unknown_store_is_refused():
    with pytest.raises(InvalidRequest, match=r"no store opens 'nonsense://a/b\.mp4'"):
        read_entries("nonsense://a/b.mp4")


def test_addresses_that_can_run_code_are_refused():
    with pytest.raises(InvalidRequest, match="addresses of reference:// are not allowed"):
        read_entries("reference://a.mp4::memory://refs.json")


def test_without_the_extra_an_error_names_it(run_without):
    assert "pip install 'clipserve[remote]'" in run_without("fsspec", "s3://bucket/a.mp4")
    assert "pip install 'clipserve[remote]'" in run_without("s3fs", "s3://bucket/a.mp4")


@pytest.fixture
def run_without():
    """The error of a Python that lacks a package."""
    import subprocess
    import sys

    code = """
import sys
sys.modules[sys.argv[1]] = None
from clipserve import InvalidRequest, read_entries
try:
    read_entries(sys.argv[2])
except InvalidRequest as error:
    print(error)
"""
    return lambda package, source: (
        subprocess.run(
            [sys.executable, "-c", code, package, source],
            capture_output=True,
            text=True,
            check=True,
            timeout=HANG_SECONDS,
        ).stdout
    )


def test_rows_of_a_run_name_objects(connect, triton, memory):
    fill(memory)
    rows = list(connect().classify_many("memory://v"))
    assert [row.video for row in rows] == ["memory://v/2.mp4", "memory://v/10.mp4", "memory://v/deep/3.MOV"]
    assert sorted(triton.videos) == sorted([b"v/2.mp4", b"v/10.mp4", b"v/deep/3.MOV"])


# ---- outputs -----------------------------------------------------------------------------------------------


def test_tables_and_vectors_are_written_to_a_bucket(connect, bucket):
    import io

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
