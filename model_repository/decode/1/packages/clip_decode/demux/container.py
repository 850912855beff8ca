"""Opening untrusted bytes as a container, so that FFmpeg opens no other file or address."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from clip_decode.demux.signatures import describe_bytes, describe_still, is_encrypted_mp4
from clip_decode.errors import Encrypted, NotAVideo, NoVideoStream, Truncated, UnsupportedCodec
from clip_decode.limits import Limits, check_bytes, check_size

# FFmpeg's names. Not on the list: playlists and scripts that open other files (concat, hls, dash),
# still images (image2pipe, png_pipe), and everything rare.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,h264,hevc,ivf,gif,apng"

# Image formats that may hold an animation. FFmpeg plays it once, whatever repetition the file requests.
ANIMATIONS = {"gif": "a GIF image", "apng": "a PNG image"}

CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"}
    | {"h263", "flv1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"}
    | {"theora", "vp6", "vp6a", "vp6f", "prores", "dnxhd", "dvvideo", "ffv1", "huffyuv"}
    | {"ffvhuff", "utvideo", "rawvideo", "png", "qtrle", "gif", "apng"}
)

# What PyAV raises for bad bytes: FFmpeg's errors, which inherit from built-in ones (ValueError, OSError, ...), and its
# own for nonsense in a header (a zero time base, bad UTF-8).
FFMPEG_ERRORS = (
    av.error.FFmpegError,
    ValueError,
    OSError,
    ArithmeticError,
    LookupError,
    RuntimeError,
    AssertionError,
    TypeError,
)

# Offset of the bits a sample: after the signature, the head of the IHDR chunk, width and height.
_PNG_DEPTH_OFFSET = 24

_ENCRYPTED = "the video is encrypted, and there is no key for it here; send it decrypted"

# PyAV reads through Python in blocks of this size; 32 KiB, its default, costs 3 % on a 60 MiB file.
_BLOCK_BYTES = 256 * 1024


class NestedOpenRefused(OSError):
    """A demuxer tried to open another file or address than the given bytes."""


@dataclass(frozen=True)
class OpenVideo:
    """An open container and the video stream to decode."""

    container: InputContainer
    stream: VideoStream

    @property
    def container_name(self) -> str:
        """FFmpeg's name of the container."""
        return self.container.format.name

    @property
    def codec_name(self) -> str:
        """FFmpeg's name of the codec, not of the decoder (av1, not libdav1d)."""
        return self.stream.codec_context.codec.canonical_name


@contextmanager
def open_video(data: bytes | memoryview, limits: Limits) -> Iterator[OpenVideo]:
    """Open the bytes of a file, and close the container at the end.

    Raises:
        TooLarge: too many bytes, or a header that states too many pixels.
        NotAVideo: no allowed container, or a still image.
        Truncated: an allowed container without its index.
        NoVideoStream: only audio, text or cover art.
        UnsupportedCodec: a codec that is not allowed.
        Encrypted: the container marks the video stream as encrypted.
    """
    check_bytes(len(data), limits)
    if len(data) == 0:
        raise NotAVideo("the file is empty")
    if still := describe_still(data):
        raise NotAVideo(f"the bytes are {still}, not a video")
    if is_encrypted_mp4(data):
        raise Encrypted(_ENCRYPTED)
    container = _open_container(data, limits)
    try:
        if not container.streams:
            found = describe_bytes(data)
            raise Truncated(f"the bytes begin as {found.name}, but hold no stream: {found.missing}")
        if container.format.name == "apng" and data[_PNG_DEPTH_OFFSET] != 8:
            # FFmpeg 8.1 composes animations of other depths (palettes of 1, 2 and 4 bits) wrongly, or not at all.
            raise UnsupportedCodec(f"the PNG animation has {data[_PNG_DEPTH_OFFSET]} bits a sample, but 8 are allowed")
        yield OpenVideo(container, _choose_stream(container, limits))
    finally:
        container.close()


def check_encryption(part: VideoStream | Packet[VideoStream]) -> None:
    """Raise Encrypted for a stream that Matroska marks, or a packet that mp4 marks (Common Encryption: cenc, cbcs)."""
    marked = "enc_key_id" in part.metadata if isinstance(part, VideoStream) else part.has_sidedata("encryption_info")
    if marked:
        raise Encrypted(_ENCRYPTED)


def _open_container(data: bytes | memoryview, limits: Limits) -> InputContainer:
    try:
        return _open(data, limits)
    except NestedOpenRefused as error:
        raise NotAVideo(f"the file names other files or addresses: {error}") from error
    except FFMPEG_ERRORS as error:
        found = describe_bytes(data)
        if found.demuxer:
            with suppress(*FFMPEG_ERRORS):
                return _open(data, limits, found.demuxer)
        if found.is_video:
            raise Truncated(f"the bytes begin as {found.name}, but cannot be opened: {found.missing}") from error
        raise NotAVideo(
            f"the bytes are {found.name}, not a video; mp4, mov, mkv, webm, avi, mpeg-ts, mpeg-ps, "
            "flv, ogg, asf, ivf, animated gif or png and raw h264 or hevc are allowed"
        ) from error


def _open(data: bytes | memoryview, limits: Limits, demuxer: str | None = None) -> InputContainer:
    return av.open(
        _open_reader(data),
        mode="r",
        format=demuxer,
        options={
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "none",
            # For the decoders that FFmpeg starts while it probes the streams. Only facts are kept of their frames, so
            # the loop filter is left out: opening an H.264 file of 1280 x 720 takes 0.9 ms instead of 1.7.
            "max_pixels": _max_pixels_option(limits),
            "threads": "1",
            "skip_loop_filter": "all",
        },
        metadata_errors="replace",
        buffer_size=_BLOCK_BYTES,
        io_open=_refuse_open,
    )


class _ViewReader(io.RawIOBase):
    """A file over a view of bytes, such as a mapped file. BytesIO would copy all of them."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._position = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else self._position + size
        data = bytes(self._view[self._position : end])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        if start + offset < 0:
            raise OSError("a seek to before the beginning")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _open_reader(data: bytes | memoryview) -> io.BytesIO | _ViewReader:
    return _ViewReader(data) if isinstance(data, memoryview) else io.BytesIO(data)


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
    raise NestedOpenRefused("opening anything but the given bytes is not allowed")


def _max_pixels_option(limits: Limits) -> str:
    # FFmpeg compares this with rows padded to 64 pixels, before it allocates a frame.
    return str(limits.max_pixels + 64 * 65536)


def _choose_stream(container: InputContainer, limits: Limits) -> VideoStream:
    best = container.streams.best("video")
    candidates = [best] if isinstance(best, VideoStream) else []
    candidates += [stream for stream in container.streams.video if stream is not best]
    videos = [s for s in candidates if not s.disposition & Disposition.attached_pic]
    if not videos:
        others = sorted({stream.type for stream in container.streams})
        raise NoVideoStream(f"the file holds no video stream, only {', '.join(others)}")
    # A HEIF sequence has a stream of one frame, its cover, beside the stream of the sequence.
    stream = min(videos, key=lambda stream: stream.frames == 1)
    check_encryption(stream)
    context = stream.codec_context
    if context is None:
        # Encryption may hide the codec.
        with suppress(*FFMPEG_ERRORS):
            for packet in islice(container.demux(stream), 1):
                check_encryption(packet)
        raise UnsupportedCodec("there is no decoder here for the codec of the video stream")
    if context.codec.canonical_name not in CODECS:
        raise UnsupportedCodec(
            f"the codec is {context.codec.canonical_name}, but only {', '.join(sorted(CODECS))} are allowed"
        )
    check_size(context.width, context.height, limits)
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = {**context.options, "max_pixels": _max_pixels_option(limits)}
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream
