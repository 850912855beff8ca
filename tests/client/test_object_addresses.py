"""Addresses of object stores: what they stand for, what an error shows of them, and which are refused."""

import logging

import pytest

from clipserve import InvalidRequest, VideoNotReadable, read_entries
from clipserve.sources.folders import Skipped
from clipserve.sources.remote_paths import RemotePath, is_remote
from clipserve.tables.embeddings import write_vectors
from tests.client.stored_videos import fill, names, read, read_failure
from tests.object_stores import SECRET
from tests.watching import HANG_SECONDS


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


def test_an_address_that_its_store_does_not_understand_fails_alone():
    pytest.importorskip("huggingface_hub")
    first, second = read_entries(["hf://a:b/c.mp4", "other.mp4"])
    assert "cannot open 'hf://a:b/c.mp4'" in str(first.video)
    assert second.video == "other.mp4"


def test_an_unknown_store_is_refused():
    with pytest.raises(InvalidRequest, match=r"no store opens 'nonsense://a/b\.mp4'"):
        read_entries("nonsense://a/b.mp4")


def test_addresses_that_can_run_code_are_refused():
    with pytest.raises(InvalidRequest, match="addresses of reference:// are not allowed"):
        read_entries("reference://a.mp4::memory://refs.json")


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


def test_without_the_extra_an_error_names_it(run_without):
    assert "pip install 'clipserve[remote]'" in run_without("fsspec", "s3://bucket/a.mp4")
    assert "pip install 'clipserve[remote]'" in run_without("s3fs", "s3://bucket/a.mp4")


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
