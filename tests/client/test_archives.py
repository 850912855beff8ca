"""Videos in archives: zip:// and tar://."""

import io
import socket
import tarfile
import threading
import zipfile

import pytest

from clipserve import DownloadLimits, VideoNotReadable, read_entries
from clipserve.cancellation import Cancellation
from clipserve.errors import RequestCancelled
from clipserve.sources.folders import Skipped
from tests.client.stored_videos import names, read
from tests.watching import at_once


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
