"""The decoder of one GPU, and the decoding of one stream by it."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.cpu import decode_packet
from clip_decode.decode.decoder import DecoderName
from clip_decode.decode.nvdec.annexb import AnnexBStream
from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.decoder_cache import CachedDecoder, DecoderCache
from clip_decode.decode.nvdec.surface import equals_frame, fill_frame
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clip_decode.errors import Declined
from clip_decode.limits import Limits
from clip_decode.plan.decode_plan import DecodeSegment

# FFmpeg's pixel formats that NVDEC's 4:2:0 surfaces of 8 and of 10 bits can be copied into.
_PIXEL_FORMATS = {8: ("yuv420p", "yuvj420p"), 10: ("yuv420p10le",)}
_CODECS = {"h264": (8, 10), "hevc": (8, 10)}
_BLOCK = 16  # Pixels; capabilities count blocks of this side.
_NOT_SHOWN = 1  # The timestamp of packets whose frames are not displayed.
_FIRST_TIMESTAMP = 2  # Zero may mean that there is none.


@dataclass(frozen=True)
class _Capability:
    """What a GPU decodes of one codec and bit depth."""

    width: range
    height: range
    blocks: int

    def covers(self, width: int, height: int) -> bool:
        """Whether the GPU decodes pictures of this coded size."""
        return width in self.width and height in self.height and width * height <= self.blocks * _BLOCK**2


class Nvdec:
    """The video decoder of one GPU. Thread-safe.

    Attributes:
        cache: its decoders.
        errors: what PyNvVideoCodec prints.
    """

    def __init__(self, nvc: Any, cuda: Cuda, *, streams: int, megabytes: int, least_pixels: int = 1) -> None:
        """Ask the GPU what it decodes.

        Args:
            nvc: the module PyNvVideoCodec.
            cuda: the context of the GPU.
            streams: number of decoders to keep at most.
            megabytes: MiB of the GPU's memory that the decoders may take together.
            least_pixels: of a frame; smaller ones are declined.

        Raises:
            RuntimeError: the driver or a part of it is missing.
        """
        self._least_pixels, self._cuda = least_pixels, cuda
        self.cache = DecoderCache(nvc, cuda, max_decoders=streams, megabytes=megabytes)
        self._capabilities = {
            (codec, bits): found
            for codec, depths in _CODECS.items()
            for bits in depths
            if (found := _query_capability(nvc, codec, bits)) is not None
        }
        self.errors = PrintedErrors()

    def check(self, context: VideoCodecContext) -> None:
        """Decline a stream by what its container states, before its packets are read.

        Raises:
            Declined: the GPU does not decode this codec, or frames of this size.
        """
        codec = context.codec.canonical_name
        found = [capability for (name, _), capability in self._capabilities.items() if name == codec]
        # The displayed size; the coded size, known later, is up to a block larger.
        is_small = context.width * context.height < self._least_pixels
        if is_small or not any(capability.covers(context.width, context.height) for capability in found):
            raise Declined(f"{codec} of {context.width} x {context.height} pixels")

    @contextmanager
    def open(
        self, context: VideoCodecContext, index: PacketIndex, display_order: Sequence[int], limits: Limits
    ) -> Iterator[NvdecDecoder]:
        """A decoder for one stream.

        Args:
            context: FFmpeg's decoder of the stream; it has decoded nothing.
            index: the packets.
            display_order: numbers of the packets that are shown, in display order.
            limits: bounds of the video.

        Raises:
            DependenciesUnknown: NVDEC does not decode the stream, or not as FFmpeg does.
        """
        stream = AnnexBStream(context.codec.canonical_name, context.extradata or b"", bytes(index.packets[0]))
        sequence = stream.sequence
        capability = self._capabilities.get((sequence.codec, sequence.bits))
        if capability is None or not capability.covers(sequence.coded_width, sequence.coded_height):
            raise DependenciesUnknown(
                f"pictures of {sequence.coded_width} x {sequence.coded_height}, {sequence.bits} bits"
            )
        errors_before = self.errors.count()
        with self.cache.acquire(sequence) as decoder:
            try:
                yield NvdecDecoder(decoder, stream, context, index, display_order, limits)
            finally:
                self._cuda.clear_thread()
            if self.errors.count() != errors_before:
                raise DependenciesUnknown("the hardware reported an error")


def _query_capability(nvc: Any, codec: str, bits: int) -> _Capability | None:
    answer = nvc.GetDecoderCaps(
        gpuid=0,
        codec=nvc.cudaVideoCodec.H264 if codec == "h264" else nvc.cudaVideoCodec.HEVC,
        chromaformat=getattr(nvc.cudaVideoChromaFormat, "420"),
        bitdepth=bits,
    )
    if not answer["supported"]:
        return None
    return _Capability(
        width=range(answer["width_min"], answer["width_max"] + 1),
        height=range(answer["height_min"], answer["height_max"] + 1),
        blocks=answer["mb_num_max"],
    )


class NvdecDecoder:
    """Decodes the segments of one stream; implements `Decoder`."""

    name: DecoderName = "nvdec"

    def __init__(
        self,
        decoder: CachedDecoder,
        stream: AnnexBStream,
        context: VideoCodecContext,
        index: PacketIndex,
        display_order: Sequence[int],
        limits: Limits,
    ) -> None:
        """See Nvdec.open."""
        self._decoder, self._stream, self._context = decoder, stream, context
        self._index, self._order, self._limits = index, display_order, limits
        # Timestamps identify frames, and increase in display order.
        self._timestamps = {number: rank + _FIRST_TIMESTAMP for rank, number in enumerate(display_order)}
        self._template: VideoFrame | None = None

    def decode(self, segment: DecodeSegment, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """See Decoder. Every frame is the same object, with the pixels replaced."""
        first = segment.packets[0]
        # The first frame of the stream is copied even if it is not wanted: to compare it.
        compare = self._template is None
        template = self._template = self._template or self._decode_on_cpu(first)
        numbers = {*wanted, first} if compare else wanted
        pending = sorted(self._timestamps[number] for number in numbers if number in segment.shown)
        for number in [*segment.packets, None]:
            # Frames that are not wanted stay on the GPU.
            seek = pending[0] if pending else len(self._order) + _FIRST_TIMESTAMP
            data = b"" if number is None else self._stream.convert(bytes(self._index.packets[number]))
            if number == first:
                data = self._stream.parameter_sets + data
            timestamp = _NOT_SHOWN if number is None else self._timestamps.get(number, _NOT_SHOWN)
            for found, surface_frame in self._send(data, timestamp, seek):
                if found == _NOT_SHOWN:
                    continue
                rank = found - _FIRST_TIMESTAMP
                source = self._order[rank] if 0 <= rank < len(self._order) else None
                frame = None
                if pending and found == pending[0]:
                    del pending[0]
                    surface = self._decoder.copy(surface_frame)
                    if compare and not equals_frame(template, surface):
                        raise DependenciesUnknown("the first frame differs from FFmpeg's")
                    compare = False
                    fill_frame(template, surface)
                    frame = template
                yield source, frame
        if pending:
            raise DependenciesUnknown("a frame did not come")

    def _send(self, data: bytes, timestamp: int, seek: int) -> Iterator[tuple[int, Any]]:
        frames = self._decoder.send(data, timestamp, seek=seek)
        while True:
            try:
                pair = next(frames, None)
            except Exception as error:
                raise DependenciesUnknown(f"NVDEC failed: {error}") from error
            if pair is None:
                return
            yield pair

    def _decode_on_cpu(self, number: int) -> VideoFrame:
        """The frame of the packet that begins a segment; its pixels may be replaced."""
        try:
            frames = decode_packet(self._context, self._index, number, self._limits)
            frames += decode_packet(self._context, self._index, None, self._limits)
        except FFMPEG_ERRORS as error:
            raise DependenciesUnknown("the first packet cannot be decoded") from error
        self._context.flush_buffers()
        sequence = self._stream.sequence
        if len(frames) != 1:
            raise DependenciesUnknown("the first packet gives no frame")
        frame = frames[0][1]
        if frame.is_corrupt or frame.interlaced_frame:
            raise DependenciesUnknown("the first frame is damaged or interlaced")
        if (frame.width, frame.height) != (sequence.width, sequence.height):
            raise DependenciesUnknown(f"frames of {frame.width} x {frame.height}")
        if frame.format.name not in _PIXEL_FORMATS[sequence.bits]:
            raise DependenciesUnknown(f"frames of pixel format {frame.format.name}")
        frame.make_writable()
        return frame


class PrintedErrors:
    """Errors that PyNvVideoCodec prints to the standard output: its only report of damage that the hardware found.

    A line does not say which stream it is about, so it counts for every stream that is being decoded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._count = 0

    def listen(self) -> None:
        """Redirect the standard output of this process for good."""
        self._library = ctypes.CDLL(None)
        self._pipe, end = os.pipe()
        for descriptor in (self._pipe, end):
            os.set_blocking(descriptor, False)  # Nobody reads while a video is decoded: what exceeds the pipe is lost.
        os.dup2(end, 1)
        os.close(end)

    def count(self) -> int:
        """Number of errors so far; always 0 before `listen`."""
        with self._lock, suppress(BlockingIOError):
            if self._pipe is not None:
                self._library.fflush(None)
                while printed := os.read(self._pipe, 65536):
                    self._count += printed.count(b"Error")
        return self._count
