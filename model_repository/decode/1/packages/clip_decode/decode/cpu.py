"""Decoding by FFmpeg on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.decoder import DecoderName
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import ByteRange, DependenciesUnknown
from clip_decode.limits import Limits, check_size
from clip_decode.plan.decode_plan import DecodeSegment


class CpuDecoder:
    """FFmpeg in the calling thread; implements `Decoder`."""

    name: DecoderName = "cpu"
    takes_parts = True

    def __init__(self, context: VideoCodecContext, index: PacketIndex, limits: Limits) -> None:
        """`context` is a decoder that has decoded nothing."""
        self._context, self._index, self._limits = context, index, limits
        self._is_fresh = True

    def decode(self, segment: DecodeSegment, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """See Decoder."""
        if not self._is_fresh:
            self._context.flush_buffers()
        self._is_fresh = False
        for number in [*segment.packets, None]:
            byte_ranges = None if number is None else segment.byte_ranges.get(number)
            try:
                frames = decode_packet(self._context, self._index, number, self._limits, byte_ranges)
            except FFMPEG_ERRORS as error:
                raise DependenciesUnknown("a packet cannot be decoded") from error
            for source, frame in frames:
                if frame.is_corrupt:
                    raise DependenciesUnknown("a frame is damaged")
                yield source, frame


def decode_packet(
    context: VideoCodecContext,
    index: PacketIndex,
    number: int | None,
    limits: Limits,
    byte_ranges: Sequence[ByteRange] | None = None,
) -> list[tuple[int | None, VideoFrame]]:
    """The frames that a decoder returns for a packet, each with the number of the packet that it is from.

    Args:
        context: the decoder.
        index: the packets.
        number: of the packet; None asks for the frames that the decoder still holds.
        limits: for the size of frames, which can change at any key frame.
        byte_ranges: the bytes of the packet to decode; None for all.

    Raises:
        TooLarge: a frame has more pixels than the limits allow.
        FFMPEG_ERRORS: the packet cannot be decoded.
    """
    found: list[tuple[int | None, VideoFrame]] = []
    for frame in context.decode(None if number is None else _numbered_packet(index, number, byte_ranges)):
        check_size(frame.width, frame.height, limits)
        source = frame.pts
        is_known = source is not None and 0 <= source < len(index.packets)
        found.append((source if is_known else None, frame))
    return found


def _numbered_packet(index: PacketIndex, number: int, byte_ranges: Sequence[ByteRange] | None) -> Packet[Any]:
    # A decoder copies the timestamp of a packet to its frame and does nothing else with it. Real timestamps can be
    # missing or ambiguous; numbers never are.
    packet: Packet[Any] = index.packets[number]
    if byte_ranges is not None:
        data = memoryview(packet)
        packet = Packet(b"".join(data[start:stop] for start, stop in byte_ranges))
    packet.pts = packet.dts = number
    return packet
