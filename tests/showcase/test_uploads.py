"""Archives that visitors upload: what is unpacked, and what is refused."""

import io
import random
import struct
import zipfile
from pathlib import Path

import pytest

from clipserve.errors import InvalidRequest
from clipserve.showcase import uploads
from clipserve.showcase.uploads import unpack


def make_archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_folder_of_a_video_is_its_class_however_deep(tmp_path: Path) -> None:
    files = dict.fromkeys(
        [
            "videos/run/1.mp4",
            "videos/run/notes.txt",
            "jump/1.MOV",
            "2.mp4",
            "__MACOSX/jump/._1.MOV",
            "jump/.hidden.mp4",
        ],
        b"video",
    )
    assert unpack([make_archive(tmp_path / "walk.zip", files)], tmp_path / "out") == 3
    assert list_files(tmp_path / "out") == ["jump/1.MOV", "run/1.mp4", "walk/2.mp4"]


def test_videos_of_one_name_stay_apart(tmp_path: Path) -> None:
    archives = [make_archive(tmp_path / f"{name}.zip", {"run/1.mp4": name.encode()}) for name in ("a", "b")]
    assert unpack(archives, tmp_path / "out") == 2
    assert list_files(tmp_path / "out") == ["run/1.mp4", "run/2-1.mp4"]


@pytest.mark.parametrize(("name", "read"), [("courir à", "courir à"), ("日本", "日本"), ("caf\udce9", "cafΘ")])
def test_a_name_may_be_utf_8_that_the_archive_does_not_call_so(tmp_path: Path, name: str, read: str) -> None:
    """As Macs write it. What cannot be UTF-8 stays what zipfile reads, code page 437."""
    raw = name.encode(errors="surrogateescape")
    archive = make_archive(tmp_path / "a.zip", {f"{'x' * len(raw)}/1.mp4": b"video"})  # ASCII needs no flag
    archive.write_bytes(archive.read_bytes().replace(b"x" * len(raw), raw))
    unpack([archive], tmp_path / "out")
    assert list_files(tmp_path / "out") == [f"{read}/1.mp4"]


@pytest.mark.parametrize("name", ["../../run/1.mp4", "/run/1.mp4", "..\\run\\1.mp4", "run/../1.mp4", "C:\\run\\1.mp4"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    before = list_files(tmp_path)
    unpack([make_archive(tmp_path / "a.zip", {name: b"video"})], tmp_path / "out")
    assert [file for file in list_files(tmp_path) if not file.startswith("out/")] == [*before, "a.zip"]
    assert list_files(tmp_path / "out") == ["run/1.mp4"]


def test_too_many_and_too_large_videos_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 3 << 20)
    bomb = make_archive(tmp_path / "bomb.zip", {"run/1.mp4": bytes(8 << 20)})
    assert bomb.stat().st_size < 20_000
    with pytest.raises(InvalidRequest, match="more than 3 MiB unpacked"):
        unpack([bomb], tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.mp4")) <= 3 << 20
    monkeypatch.setattr(uploads, "MOST_VIDEOS", 2)
    many = make_archive(tmp_path / "many.zip", {f"run/{number}.mp4": b"" for number in range(3)})
    with pytest.raises(InvalidRequest, match="more than 2 videos"):
        unpack([many], tmp_path / "other")


def test_a_long_list_of_entries_is_not_read(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "long.zip", {f"{number:0200d}.txt": b"" for number in range(10_000)})
    with pytest.raises(InvalidRequest, match="too many files"):
        unpack([path], tmp_path / "out")


def disguise(content: bytes, how: str) -> bytes:
    """The archive with another length of its list of entries where zipfile does not look for it."""
    begin, end = content[:-22], content[-22:]
    _, *numbers, size, offset, comment = struct.unpack("<4s4H2LH", end)
    short = struct.pack("<4s4H2LH", b"PK\x05\x06", *numbers, 10, offset, comment)
    if how == "a signature inside the end record":
        return begin + end[:16] + b"PK\x05\x06" + end[20:]
    if how == "a comment of 64 KiB":
        return content + bytes(1 << 16)
    # ZIP64 says the true length.
    entries = numbers[-1]
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, offset)
    return begin + end64 + struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1) + short


@pytest.mark.parametrize("how", ["a signature inside the end record", "a comment of 64 KiB", "ZIP64"])
def test_a_long_list_of_entries_is_not_read_whatever_length_the_archive_pretends(tmp_path: Path, how: str) -> None:
    path = make_archive(tmp_path / "long.zip", {f"{number:0200d}.txt": b"" for number in range(10_000)})
    path.write_bytes(disguise(path.read_bytes(), how))
    assert len(zipfile.ZipFile(path).infolist()) == 10_000
    with pytest.raises(InvalidRequest, match=r"'long\.zip' has too many files"):
        unpack([path], tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, b"PK\x05\x06" + bytes(10)])
def test_what_is_no_archive_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.zip"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"'mine\.zip' cannot be read as a zip archive"):
        unpack([path], tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_gets_a_sentence(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("run/1.mp4", random.Random(1).randbytes(1000))
    content = bytearray(buffer.getvalue())
    content[200] ^= 1
    (tmp_path / "mine.zip").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"'mine\.zip' cannot be read"):
        unpack([tmp_path / "mine.zip"], tmp_path / "out")


def test_an_archive_with_a_name_that_is_no_text_gets_a_sentence(tmp_path: Path) -> None:
    path = make_archive(tmp_path / "mine.zip", {"läuft/1.mp4": b"video"})
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xe4\xe4"))
    with pytest.raises(InvalidRequest, match=r"'mine\.zip' cannot be read"):
        unpack([path], tmp_path / "out")


def test_an_archive_without_videos_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no video in what was uploaded"):
        unpack([make_archive(tmp_path / "a.zip", {"run/notes.txt": b""})], tmp_path / "out")


def test_names_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    for name in ("ru\u202en/1.mp4", "r" * 300 + "/1.mp4"):
        with pytest.raises(InvalidRequest, match="too long or has invisible characters"):
            unpack([make_archive(tmp_path / "a.zip", {name: b""})], tmp_path / "out")
