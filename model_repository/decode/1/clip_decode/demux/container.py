"""Opening untrusted bytes as a video, so that nothing else is ever opened."""

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
from clip_decode.errors import Encrypted, NotAVideo, NoVideoStream, TooLarge, Truncated, UnsupportedCodec
from clip_decode.limits import Limits, check_bytes

# FFmpeg's names. Not on the list: playlists and scripts that open other files (concat, hls, dash),
# still images (image2pipe, png_pipe), and everything rare.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,h264,hevc,ivf,gif,apng"

# Formats of images that may move. FFmpeg plays them once, however often they ask to be repeated.
ANIMATIONS = {"gif": "a GIF image", "apng": "a PNG image"}

CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"}
    | {"h263", "flv1", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"}
    | {"theora", "vp6", "vp6a", "vp6f", "prores", "dnxhd", "dvvideo", "ffv1", "huffyuv"}
    | {"ffvhuff", "utvideo", "rawvideo", "png", "qtrle", "gif", "apng"}
)

# What FFmpeg can raise for bytes: its own errors, which inherit from built-in ones (ValueError,
# OSError, ...), and what PyAV itself raises for nonsense in a header (a zero time base, bad UTF-8).
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

# Offset of the bits a sample: behind signature, head of the chunk IHDR, width and height.
_PNG_DEPTH = 24

_ENCRYPTED = "the video is encrypted, and there is no key for it here; send it decrypted"

# PyAV reads through Python in blocks of this size; 32 KiB, its default, costs 3 % on a 60 MiB file.
_BLOCK_BYTES = 256 * 1024


class NestedOpenRefused(OSError):
    """A demuxer asked for another file or address than the bytes it was given."""


@dataclass(frozen=True)
class OpenVideo:
    """A container and the picture stream in it that is served."""

    container: InputContainer
    stream: VideoStream

    @property
    def container_name(self) -> str:
        """FFmpeg's name of the container."""
        return self.container.format.name

    @property
    def codec_name(self) -> str:
        """FFmpeg's name of the codec: of the stream, not of the decoder (av1, not libdav1d)."""
        return self.stream.codec_context.codec.canonical_name


@contextmanager
def open_video(data: bytes | memoryview, limits: Limits) -> Iterator[OpenVideo]:
    """Open the bytes of a file; the container is closed on leaving.

    Raises:
        TooLarge: too many bytes, or a header that names too many pixels.
        NotAVideo: no container on the list, or a still picture.
        Truncated: a container on the list whose index is missing.
        NoVideoStream: nothing but sound, text or cover art.
        UnsupportedCodec: a codec that is not on the list.
        Encrypted: what a container says of its pictures.
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
        if container.format.name == "apng" and data[_PNG_DEPTH] != 8:
            # FFmpeg 8.1 puts together animations of other depths wrongly (palettes of 1, 2 and 4 bits), or not at all.
            raise UnsupportedCodec(f"the PNG animation has {data[_PNG_DEPTH]} bits a sample, but 8 are allowed")
        yield OpenVideo(container, _choose_stream(container, limits))
    finally:
        container.close()


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
            raise Truncated(f"the bytes begin as {found.name}, but can not be opened: {found.missing}") from error
        raise NotAVideo(
            f"the bytes are {found.name}, not a video; mp4, mov, mkv, webm, avi, mpeg-ts, mpeg-ps, "
            "flv, ogg, asf, ivf, animated gif or png and raw h264 or hevc are allowed"
        ) from error


def _open(data: bytes | memoryview, limits: Limits, demuxer: str | None = None) -> InputContainer:
    return av.open(
        io.BytesIO(data),
        mode="r",
        format=demuxer,
        options={
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "none",
            # Reach the decoders that FFmpeg starts by itself to fill in stream facts.
            "max_pixels": _allocation_bound(limits),
            "threads": "1",
        },
        metadata_errors="replace",
        buffer_size=_BLOCK_BYTES,
        io_open=_refuse_open,
    )


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
    raise NestedOpenRefused("opening anything but the given bytes is not allowed")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture, or a frame of one, that has more pixels than the limits allow.

    Raises:
        TooLarge: it has.
    """
    if width * height > limits.max_pixels:
        raise TooLarge(f"the picture has {width} x {height} pixels, but {limits.max_pixels} are allowed")


def check_encryption(part: VideoStream | Packet[VideoStream]) -> None:
    """Refuse a stream that Matroska marks, or a packet that mp4 marks (Common Encryption: cenc, cbcs and others).

    Raises:
        Encrypted: it is.
    """
    marked = "enc_key_id" in part.metadata if isinstance(part, VideoStream) else part.has_sidedata("encryption_info")
    if marked:
        raise Encrypted(_ENCRYPTED)


def _allocation_bound(limits: Limits) -> str:
    # FFmpeg checks its own bound against rows padded to 64 pixels, before it allocates a frame.
    return str(limits.max_pixels + 64 * 65536)


def _choose_stream(container: InputContainer, limits: Limits) -> VideoStream:
    best = container.streams.best("video")
    candidates = [best] if isinstance(best, VideoStream) else []
    candidates += [stream for stream in container.streams.video if stream is not best]
    moving = [s for s in candidates if not s.disposition & Disposition.attached_pic]
    if not moving:
        others = sorted({stream.type for stream in container.streams})
        raise NoVideoStream(f"the file holds no moving picture, only {', '.join(others)}")
    # A HEIF file's picture is a stream of one frame beside the track that is its sequence.
    stream = min(moving, key=lambda stream: stream.frames == 1)
    check_encryption(stream)
    context = stream.codec_context
    if context is None:
        # The codec can be the very thing that encryption hides.
        with suppress(*FFMPEG_ERRORS):
            for packet in islice(container.demux(stream), 1):
                check_encryption(packet)
        raise UnsupportedCodec("no decoder here reads the codec of the picture stream")
    if context.codec.canonical_name not in CODECS:
        raise UnsupportedCodec(
            f"the codec is {context.codec.canonical_name}, but only {', '.join(sorted(CODECS))} are allowed"
        )
    check_size(context.width, context.height, limits)
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = {**context.options, "max_pixels": _allocation_bound(limits)}
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream
