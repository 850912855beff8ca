"""NVDEC, the video decoder of NVIDIA's GPUs, through PyNvVideoCodec: the same frames, made elsewhere.

Everything before and after is the CPU's: the packets, the proof, the plan, and what becomes of the pixels. A frame that
FFmpeg decoded gives each stream its colours, its turn and its place of chroma; NVDEC's samples are put into it, and the
first frame of a stream must come out of both alike. Whatever is not as expected is left to a CPU.
"""

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
from clip_decode.decode.nvdec.annexb import Bitstream
from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.decoder_cache import Engine, Engines
from clip_decode.decode.nvdec.surface import equals_frame, fill_frame
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import Track
from clip_decode.dependencies.packet_dependencies import Unproven
from clip_decode.errors import Declined
from clip_decode.limits import Limits
from clip_decode.plan.decode_plan import Run

# FFmpeg's names of what NVDEC's 4:2:0 surfaces of 8 and of 10 bits can be put into.
_FORMATS = {8: ("yuv420p", "yuvj420p"), 10: ("yuv420p10le",)}
_CODECS = {"h264": (8, 10), "hevc": (8, 10)}
_BLOCK = 16  # Pixels; capabilities count blocks of this side.
_UNSHOWN = 1  # The stamp of packets whose frames are not shown.


@dataclass(frozen=True)
class _Capability:
    """What a GPU decodes of one codec and depth."""

    width: range
    height: range
    blocks: int

    def covers(self, width: int, height: int) -> bool:
        """Whether pictures of this coded size are decoded."""
        return width in self.width and height in self.height and width * height <= self.blocks * _BLOCK**2


class Nvdec:
    """The video decoder of one GPU; every method may be called from any thread.

    Raises:
        ImportError, OSError, RuntimeError: PyNvVideoCodec, the driver or a part of it is missing.
    """

    def __init__(self, nvc: Any, cuda: Cuda, *, streams: int, megabytes: int, least_pixels: int = 1) -> None:
        """Keeps up to `streams` decoders, which take up to `megabytes` of the GPU's memory.

        least_pixels: of a picture; smaller ones are declined.
        """
        self._least_pixels, self._cuda = least_pixels, cuda
        self.engines = Engines(nvc, cuda, most=streams, megabytes=megabytes)
        self._capabilities = {
            (codec, bits): found
            for codec, depths in _CODECS.items()
            for bits in depths
            if (found := _ask(nvc, codec, bits)) is not None
        }
        self.errors = PrintedErrors()

    def check(self, context: VideoCodecContext) -> None:
        """Tell early what is none of its business.

        Raises:
            Declined: another codec, or a picture of a size that it does not decode.
        """
        codec = context.codec.canonical_name
        found = [capability for (name, _), capability in self._capabilities.items() if name == codec]
        # By the size shown; the coded size, known later, is up to a block larger.
        is_small = context.width * context.height < self._least_pixels
        if is_small or not any(capability.covers(context.width, context.height) for capability in found):
            raise Declined(f"{codec} of {context.width} x {context.height} pixels")

    @contextmanager
    def open(
        self, context: VideoCodecContext, track: Track, order: Sequence[int], limits: Limits
    ) -> Iterator[NvdecDecoder]:
        """A decoder for one stream.

        Args:
            context: FFmpeg's decoder of it, fresh.
            track: the packets.
            order: numbers of the packets that are shown, in the order they are shown.
            limits: what the video may ask for.

        Raises:
            Unproven: a stream that it does not decode, or not as FFmpeg does.
        """
        bitstream = Bitstream(context.codec.canonical_name, context.extradata or b"", bytes(track.packets[0]))
        sequence = bitstream.sequence
        capability = self._capabilities.get((sequence.codec, sequence.bits))
        if capability is None or not capability.covers(sequence.coded_width, sequence.coded_height):
            raise Unproven(f"pictures of {sequence.coded_width} x {sequence.coded_height}, {sequence.bits} bits")
        before = self.errors.count()
        with self.engines.lend(sequence) as engine:
            try:
                yield NvdecDecoder(engine, bitstream, context, track, order, limits)
            finally:
                self._cuda.leave()
            if self.errors.count() != before:
                raise Unproven("the hardware reported an error")


def _ask(nvc: Any, codec: str, bits: int) -> _Capability | None:
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
    """Decodes the runs of one stream."""

    name: DecoderName = "nvdec"

    def __init__(
        self,
        engine: Engine,
        bitstream: Bitstream,
        context: VideoCodecContext,
        track: Track,
        order: Sequence[int],
        limits: Limits,
    ) -> None:
        """See Nvdec.open."""
        self._engine, self._bitstream, self._context = engine, bitstream, context
        self._track, self._order, self._limits = track, order, limits
        # Stamps tell frames apart and rise as they are shown. Zero may stand for none.
        self._stamps = {number: rank + 2 for rank, number in enumerate(order)}
        self._sheet: VideoFrame | None = None

    def decode(self, run: Run, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """See Decoder. The frames are one and the same, with pixels put in its place."""
        first = run.packets[0]
        # The first of all frames is read even if nobody wants it: to compare it.
        to_compare = self._sheet is None
        sheet = self._sheet = self._sheet or self._decode_on_cpu(first)
        numbers = {*wanted, first} if to_compare else wanted
        waiting = sorted(self._stamps[number] for number in numbers if number in run.shown)
        for number in [*run.packets, None]:
            # Frames that nobody wants stay on the GPU, unread.
            seek = waiting[0] if waiting else len(self._order) + 2
            data = b"" if number is None else self._bitstream.convert(bytes(self._track.packets[number]))
            if number == first:
                data = self._bitstream.sets + data
            stamp = _UNSHOWN if number is None else self._stamps.get(number, _UNSHOWN)
            for came, picture in self._feed(data, stamp, seek):
                if came == _UNSHOWN:
                    continue
                source = self._order[came - 2] if 2 <= came < len(self._order) + 2 else None
                frame = None
                if waiting and came == waiting[0]:
                    del waiting[0]
                    surface = self._engine.read(picture)
                    if to_compare and not equals_frame(sheet, surface):
                        raise Unproven("the first frame is another one than FFmpeg's")
                    to_compare = False
                    fill_frame(sheet, surface)
                    frame = sheet
                yield source, frame
        if waiting:
            raise Unproven("a frame did not come")

    def _feed(self, data: bytes, stamp: int, seek: int) -> Iterator[tuple[int, Any]]:
        frames = self._engine.feed(data, stamp, seek=seek)
        while True:
            try:
                pair = next(frames, None)
            except Exception as error:
                raise Unproven(f"NVDEC failed: {error}") from error
            if pair is None:
                return
            yield pair

    def _decode_on_cpu(self, number: int) -> VideoFrame:
        """The frame of one packet, which begins a run; a frame of its own, which may be written on."""
        try:
            frames = decode_packet(self._context, self._track, number, self._limits)
            frames += decode_packet(self._context, self._track, None, self._limits)
        except FFMPEG_ERRORS as error:
            raise Unproven("the first packet can not be decoded") from error
        self._context.flush_buffers()
        sequence = self._bitstream.sequence
        if len(frames) != 1:
            raise Unproven("the first packet gives no frame")
        frame = frames[0][1]
        if frame.is_corrupt or frame.interlaced_frame:
            raise Unproven("the first frame is damaged, or interlaced")
        if (frame.width, frame.height) != (sequence.width, sequence.height):
            raise Unproven(f"frames of {frame.width} x {frame.height}")
        if frame.format.name not in _FORMATS[sequence.bits]:
            raise Unproven(f"pixels of format {frame.format.name}")
        frame.make_writable()
        return frame


class PrintedErrors:
    """Errors that PyNvVideoCodec prints to the standard output: its only word of damage that the hardware found.

    They do not say which stream they are of, so they count for all that are decoded at the time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._count = 0

    def listen(self) -> None:
        """Take the standard output of this process, for good."""
        self._library = ctypes.CDLL(None)
        self._pipe, end = os.pipe()
        for descriptor in (self._pipe, end):
            os.set_blocking(descriptor, False)  # Nobody reads while a video is decoded: what is too much is lost.
        os.dup2(end, 1)
        os.close(end)

    def count(self) -> int:
        """How many so far; always 0 before `listen`."""
        with self._lock, suppress(BlockingIOError):
            if self._pipe is not None:
                self._library.fflush(None)
                while printed := os.read(self._pipe, 65536):
                    self._count += printed.count(b"Error")
        return self._count
