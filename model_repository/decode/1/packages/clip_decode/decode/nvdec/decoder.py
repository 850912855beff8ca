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
_NOT_SHOWN = 1  # The timestamp of packets whose frames are not displayed.
_FIRST_TIMESTAMP = 2  # Zero may mean that there is none.


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
        # Timestamps identify frames, and increase in display order.
        self._timestamps = {number: rank + _FIRST_TIMESTAMP for rank, number in enumerate(display_order)}
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
