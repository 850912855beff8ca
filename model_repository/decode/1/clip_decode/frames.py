"""Decoding packets into the frames that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .canvas import Canvas
from .container import FFMPEG_ERRORS
from .errors import TooLarge
from .limits import Limits
from .track import Track


@dataclass
class Decoded:
    """What a walk through the decoder met.

    Attributes:
        order: the packet that each frame came from, in the order of output; None if unknown.
        damaged: whether a packet could not be decoded, or only with errors concealed.
    """

    order: list[int | None] = field(default_factory=list)
    damaged: bool = False


def decode_whole(context: VideoCodecContext, track: Track, canvas: Canvas, limits: Limits) -> Decoded:
    """Decode every packet, as plain decoding does, and draw the frames whose number is wanted.

    Packets that fail are stepped over, which is what every player does.

    Raises:
        TooLarge: a frame with more pixels than the limits allow.
    """
    decoded = Decoded()
    for number in range(len(track.packets) + 1):
        packet = number_packet(track, number) if number < len(track.packets) else None
        for frame in _decode(context, packet, decoded):
            check_size(frame, limits)
            index = len(decoded.order)
            decoded.order.append(read_number(frame, track))
            if index in canvas.missing:
                canvas.draw(index, frame)
    return decoded


def number_packet(track: Track, number: int) -> Packet[VideoStream]:
    """Give a packet its number in place of a timestamp: decoders hand it on to the frame.

    Timestamps can be missing or ambiguous; numbers never are, and no decoder reads them.
    """
    packet = track.packets[number]
    packet.pts = packet.dts = number
    return packet


def read_number(frame: VideoFrame, track: Track) -> int | None:
    """The packet a frame came from."""
    number = frame.pts
    return number if number is not None and 0 <= number < len(track.packets) else None


def check_size(frame: VideoFrame, limits: Limits) -> None:
    """Refuse a frame that is too large: a stream can change its size at any keyframe."""
    if frame.width * frame.height > limits.max_pixels:
        raise TooLarge(f"a frame has {frame.width} x {frame.height} pixels, but {limits.max_pixels} are allowed")


def _decode(context: VideoCodecContext, packet: Packet[VideoStream] | None, decoded: Decoded) -> Iterator[VideoFrame]:
    try:
        frames = context.decode(packet)
    except FFMPEG_ERRORS:
        decoded.damaged = True
        return
    for frame in frames:
        decoded.damaged = decoded.damaged or frame.is_corrupt
        yield frame
