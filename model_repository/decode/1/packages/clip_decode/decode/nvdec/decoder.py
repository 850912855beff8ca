"""The decoding of one stream by NVDEC."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.cpu import decode_packet
from clip_decode.decode.decoder import DecoderName
from clip_decode.decode.nvdec.bitstream import Bitstream
from clip_decode.decode.nvdec.decoder_cache import CachedDecoder
from clip_decode.decode.nvdec.surface import equals_frame, fill_frame
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clip_decode.limits import Limits
from clip_decode.plan.decode_plan import DecodeSegment

# FFmpeg's pixel formats that NVDEC's 4:2:0 surfaces of 8 and of 10 bits can be copied into.
_PIXEL_FORMATS = {8: ("yuv420p", "yuvj420p"), 10: ("yuv420p10le",)}


class NvdecDecoder:
    """Decodes the segments of one stream; implements `Decoder`."""

    name: DecoderName = "nvdec"
    takes_parts = False

    def __init__(
        self,
        acquire: Callable[[], CachedDecoder],
        stream: Bitstream,
        context: VideoCodecContext,
        index: PacketIndex,
        display_order: Sequence[int],
        limits: Limits,
    ) -> None:
        """See Nvdec.open. acquire: returns a decoder that is ready for the stream."""
        self._acquire, self._stream, self._context = acquire, stream, context
        self._index, self._order, self._limits = index, display_order, limits
        # Timestamps identify frames, and increase in display order, after those of frames that are not displayed. They
        # begin with 1, because 0 may mean that there is none.
        self._first_shown = len(index.packets) + 1
        self._timestamps = {number: rank + self._first_shown for rank, number in enumerate(display_order)}
        self._template: VideoFrame | None = None

    def decode(self, segment: DecodeSegment, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """See Decoder. Every frame is the same object, with the pixels replaced."""
        first = segment.packets[0]
        # The first frame of the stream is copied even if it is not wanted: to compare it.
        compare = self._template is None
        if self._template is None:
            self._template = self._decode_on_cpu(first)
            # Not before: a video that fails discards its decoder, and by now the request and a frame were right.
            self._decoder = self._acquire()
        template = self._template
        numbers = {*wanted, first} if compare else wanted
        pending = sorted(map(self._timestamp, numbers))
        due = set(map(self._timestamp, segment.packets))
        for number in [*segment.packets, None]:
            # Frames that are not wanted stay on the GPU.
            seek = pending[0] if pending else self._first_shown + len(self._order)
            data = b"" if number is None else self._stream.convert(bytes(self._index.packets[number]))
            if number == first:
                data = self._stream.parameter_sets + data
                self._settle(data)
            timestamp = 1 if number is None else self._timestamp(number)
            for found, surface_frame in self._send(data, timestamp, seek):
                frame = None
                if found not in due:
                    raise DependenciesUnknown("a frame came that no packet holds")
                due.remove(found)
                if pending and found == pending[0]:
                    del pending[0]
                    surface = self._decoder.copy(surface_frame)
                    if compare and not equals_frame(template, surface):
                        raise DependenciesUnknown("the first frame differs from FFmpeg's")
                    compare = False
                    fill_frame(template, surface)
                    frame = template
                if (rank := found - self._first_shown) >= 0:
                    yield self._order[rank], frame
        if pending:
            raise DependenciesUnknown("a frame did not come")

    def _timestamp(self, number: int) -> int:
        return self._timestamps.get(number, number + 1)

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

    def _settle(self, data: bytes) -> None:
        try:
            self._decoder.settle(data)
        except Exception as error:
            raise DependenciesUnknown(f"NVDEC failed: {error}") from error

    def _decode_on_cpu(self, number: int) -> VideoFrame:
        """The frame of the packet that begins a segment; its pixels may be replaced."""
        # FFmpeg gives no frame for a packet that an edit list discards. A new packet with its bytes has no such mark.
        whole = [(0, self._index.packets[number].size)] if number in self._index.discarded else None
        try:
            frames = decode_packet(self._context, self._index, number, self._limits, whole)
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
