"""Naming bytes that could not be opened, by how they begin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """What bytes look like.

    Attributes:
        name: for a sentence: "a PNG image".
        is_video: whether an allowed container begins this way.
        missing: for such a container, what kept it from being opened.
        demuxer: FFmpeg's name of it, where FFmpeg may not find it by itself.
    """

    name: str
    is_video: bool = False
    missing: str = "its header is incomplete or damaged"
    demuxer: str | None = None


_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot")
_IMAGE_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif")

# (offset, bytes there, name)
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"WAVE", "WAV audio"),
    (0, b"ID3", "MP3 audio"),
    (0, b"fLaC", "FLAC audio"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"#EXTM3U", "an HLS playlist"),
    (0, b"ffconcat", "an FFmpeg concat script"),
    (0, b"<?xml", "an XML document"),
    (0, b"<", "markup"),
)
_VIDEOS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (8, b"AVI ", "AVI"),
    (0, b"FLV\x01", "FLV"),
    (0, b"OggS", "Ogg"),
    (0, b"\x30\x26\xb2\x75", "ASF"),
    (0, b"DKIF", "IVF"),
    (0, b"\0\0\x01\xba", "an MPEG program stream"),
)


def describe_bytes(data: bytes | memoryview) -> Description:
    """Say what bytes that could not be opened look like."""
    head = bytes(data[:64])
    if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
        return Description("a HEIF or AVIF image")
    if head[4:8] in _MOV_BOXES:
        return Description("mp4 or mov", is_video=True, missing=_find_missing_box(data))
    for offset, magic, name in _VIDEOS:
        if head[offset : offset + len(magic)] == magic:
            return Description(name, is_video=True)
    if head[:1] == b"\x47" and bytes(data[188:189]) in (b"\x47", b""):
        # FFmpeg takes a few packets for something else.
        return Description("MPEG-TS", is_video=True, demuxer="mpegts")
    for offset, magic, name in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            return Description(name)
    return Description("in no format known here")


def _find_missing_box(data: bytes | memoryview) -> str:
    """Walk the top-level boxes of an mp4 and say what is wrong with them."""
    offset = 0
    for _ in range(1000):
        size = int.from_bytes(data[offset : offset + 4], "big")
        kind = bytes(data[offset + 4 : offset + 8])
        if size == 1:
            size = int.from_bytes(data[offset + 8 : offset + 16], "big")
        if kind == b"moov":
            whole = offset + size <= len(data)
            return "its index (moov) is damaged" if whole else "its index (moov) is cut off"
        if size < 8 or offset + size > len(data):
            break
        offset += size
    return "its index (moov) is missing, as in a recording or an upload that was cut off"
