"""Single packets into frames, with every packet known by its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.demux.container import check_size
from clip_decode.demux.packets import Track
from clip_decode.limits import Limits


def decode_packet(
    context: VideoCodecContext,
    track: Track,
    number: int | None,
    limits: Limits,
    spans: Sequence[tuple[int, int]] | None = None,
) -> list[tuple[int | None, VideoFrame]]:
    """Frames that come out when a packet goes in, each with the number of the packet it is from.

    Args:
        context: the decoder.
        track: the packets.
        number: of the packet; None asks for the frames still waiting.
        limits: for the size of frames, which can change at any keyframe.
        spans: the bytes of the packet to decode; None for all.

    Raises:
        TooLarge: a frame with more pixels than the limits allow.
        FFMPEG_ERRORS: the packet can not be decoded.
    """
    found: list[tuple[int | None, VideoFrame]] = []
    for frame in context.decode(None if number is None else _numbered(track, number, spans)):
        check_size(frame.width, frame.height, limits)
        source = frame.pts
        known = source is not None and 0 <= source < len(track.packets)
        found.append((source if known else None, frame))
    return found


def _numbered(track: Track, number: int, spans: Sequence[tuple[int, int]] | None) -> Packet[Any]:
    # A decoder hands the timestamp of a packet on to its frame and does nothing else with it. Real
    # timestamps can be missing or ambiguous; numbers never are.
    packet: Packet[Any] = track.packets[number]
    if spans is not None:
        data = memoryview(packet)
        packet = Packet(b"".join(data[start:stop] for start, stop in spans))
    packet.pts = packet.dts = number
    return packet
