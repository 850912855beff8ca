"""Recognising a file format by its bytes, where FFmpeg does not open it or opens too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """The format that bytes begin as.

    Attributes:
        name: for a sentence: "a PNG image".
        is_video: whether it is an allowed container.
        missing: for an allowed container, why it could not be opened.
        demuxer: FFmpeg's name of the demuxer, where FFmpeg may not find it by itself.
    """

    name: str
    is_video: bool = False
    missing: str = "its header is incomplete or damaged"
    demuxer: str | None = None


_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot")
# Brands that "ftyp" names first in a still HEIF image (ISO 23008-12; AVIF). Sequences have other brands (msf1, hevc,
# avis), and a track.
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"avci", b"avcs", b"avif", b"mif1", b"mif2", b"miaf", b"jpeg"}
# The box of sample descriptions, and the kinds of description of encrypted video (ISO 14496-12, 8.12; FairPlay).
_SAMPLE_DESCRIPTION = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_BOX_HEAD_BYTES = _STSD_HEAD_BYTES = 8
_ENCRYPTED_VIDEO = {b"encv", b"drmi"}
_MAX_BOXES = 1000
_TRANSPORT_PACKET_BYTES = 188
_WEBP_FLAGS_OFFSET, _WEBP_ANIMATION = 20, 0x02  # Of the VP8X chunk (RFC 9649, 2.7.1).

# (offset, bytes there, name)
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
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
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\x01\xba", "an MPEG program stream"),
)


def describe_bytes(data: bytes | memoryview) -> Description:
    """Describe bytes that FFmpeg could not open."""
    head = bytes(data[:64])
    if head[4:8] in _MOV_BOXES:
        return Description("mp4 or mov", is_video=True, missing=_describe_missing_index(data))
    for offset, magic, name in _VIDEOS:
        if head[offset : offset + len(magic)] == magic:
            return Description(name, is_video=True)
    if _is_transport_stream(data):
        # FFmpeg takes a few packets for another format.
        return Description("MPEG-TS", is_video=True, demuxer="mpegts")
    if head[8:16] == b"WEBPVP8X" and len(head) > _WEBP_FLAGS_OFFSET and head[_WEBP_FLAGS_OFFSET] & _WEBP_ANIMATION:
        return Description("an animated WebP image, which FFmpeg 8.1 does not decode")
    for offset, magic, name in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            return Description(name)
    return Description("in no format known here")


def describe_still(data: bytes | memoryview) -> str | None:
    """Name a still HEIF or AVIF image; None for everything else.

    FFmpeg opens such an image as a video of one frame, or of one tile.
    """
    if data[4:8] != b"ftyp":
        return None
    boxes = {kind: offset for kind, offset, _ in _walk_boxes(data)}
    if b"moov" in boxes:
        return None  # It has tracks, which may be a video.
    offset = boxes.get(b"meta")
    # The handler of "meta", its first box, says what the items are.
    has_images = offset is not None and b"hdlr" + bytes(8) + b"pict" in bytes(data[offset : offset + 64])
    return "a HEIF or AVIF image" if has_images or bytes(data[8:12]) in _STILL_BRANDS else None


def is_encrypted_mp4(data: bytes | memoryview) -> bool:
    """Whether the index of an mp4 describes encrypted video.

    FFmpeg marks single packets, but not in every file. It marks nothing where keys and vectors are in boxes that it
    does not know. It does not open a file whose index and fragments disagree about the encryption, as FFmpeg 5.1 writes
    them.
    """
    return any(
        kind in _ENCRYPTED_VIDEO
        for description in _find_boxes(memoryview(data), _SAMPLE_DESCRIPTION)
        for kind, _, _ in _walk_boxes(description[_STSD_HEAD_BYTES:])
    )


def _is_transport_stream(data: bytes | memoryview) -> bool:
    """Whether each of the first packets, two at least, begins with the sync byte, which is also the letter G."""
    starts = bytes(data[: 4 * _TRANSPORT_PACKET_BYTES : _TRANSPORT_PACKET_BYTES])
    return len(starts) > 1 and set(starts) == {0x47}


def _find_boxes(data: memoryview, path: Sequence[bytes]) -> Iterator[memoryview]:
    """Contents of every box at this path of kinds."""
    for kind, offset, end in _walk_boxes(data):
        if kind == path[0]:
            content = data[offset + _BOX_HEAD_BYTES : end]
            if len(path) == 1:
                yield content
            else:
                yield from _find_boxes(content, path[1:])


def _walk_boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and end of the top-level boxes of an mp4, up to the first that is invalid or truncated."""
    offset = 0
    for _ in range(_MAX_BOXES):
        size = int.from_bytes(data[offset : offset + 4], "big")
        if size == 1:
            size = int.from_bytes(data[offset + 8 : offset + 16], "big")
        if len(data) < offset + 8:
            return
        yield bytes(data[offset + 4 : offset + 8]), offset, offset + size
        if size < 8 or offset + size > len(data):
            return
        offset += size


def _describe_missing_index(data: bytes | memoryview) -> str:
    for kind, _, end in _walk_boxes(data):
        if kind == b"moov":
            return "its index (moov) is damaged" if end <= len(data) else "its index (moov) is cut off"
    return "its index (moov) is missing, as in a recording or an upload that was cut off"
