"""The packets of the video stream, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.stream import VideoStream

from clip_decode.demux.container import ANIMATIONS, FFMPEG_ERRORS, OpenVideo, check_encryption
from clip_decode.demux.ffmpeg_log import FfmpegErrorLog
from clip_decode.errors import NotAVideo, TooLong, Truncated
from clip_decode.limits import Limits

# For streams that state no frame rate; FFmpeg assumes the same for raw streams.
_FALLBACK_FRAME_RATE = Fraction(25)
_FRAME_RATES = (Fraction(1, 10), Fraction(1000))


@dataclass(frozen=True)
class PacketIndex:
    """Every packet of the video stream, in decoding order. Takes about as much memory as the file has bytes.

    A packet is known by its number: its place in `packets`.

    Attributes:
        packets: from the demuxer, without empty ones.
        pts: presentation timestamp of each packet in units of `time_base`; None where the container states none.
        time_base: seconds a unit.
        frame_rate: frames a second that the container states, or a guess.
        damaged: whether reading stopped early or a packet is incomplete.
        has_errors: whether FFmpeg logged an error; what it then left out is unknown.
    """

    packets: Sequence[Packet[VideoStream]]
    pts: Sequence[int | None]
    time_base: Fraction
    frame_rate: Fraction
    damaged: bool
    has_errors: bool

    def duration_of(self, number: int) -> int:
        """Duration of a packet in units of `time_base`; 0 if unknown."""
        return max(self.packets[number].duration or 0, 0)

    def display_order(self) -> list[int]:
        """Packet numbers in display order: by timestamp if every packet has one, else in decoding order.

        Packets that an edit list discards are not displayed.

        Raises:
            Truncated: no packet is displayed.
        """
        shown = [number for number, packet in enumerate(self.packets) if not packet.is_discard]
        if not shown:
            raise Truncated("the container is known, but it holds not one whole frame")
        timestamps = {number: self.pts[number] for number in shown}
        if None in timestamps.values():
            return shown
        return sorted(shown, key=lambda number: (timestamps[number], number))


def read_packets(video: OpenVideo, limits: Limits) -> PacketIndex:
    """Read every packet of the video stream.

    Raises:
        TooLong: more packets than frames are allowed.
        Encrypted: a packet is encrypted; the first ones need not be.
        NotAVideo: an image format that holds a single image.
    """
    packets: list[Packet[VideoStream]] = []
    damaged = has_errors = False
    with FfmpegErrorLog() as log:
        try:
            for packet in video.container.demux(video.stream):
                has_errors = has_errors or log.has_errors
                if packet.size == 0:
                    continue  # The end, or a dropped frame in AVI, which would end the decoder.
                check_encryption(packet)
                damaged = damaged or packet.is_corrupt
                packets.append(packet)
                if len(packets) > limits.max_frames:
                    raise TooLong(f"the video has more than the {limits.max_frames} frames allowed")
        except FFMPEG_ERRORS:
            damaged = True
        has_errors = has_errors or log.has_errors
    still = ANIMATIONS.get(video.container_name)
    if still and len(packets) == 1:
        raise NotAVideo(f"the bytes are {still} that is not animated, not a video")
    return PacketIndex(
        packets=packets,
        pts=[packet.pts for packet in packets],
        time_base=video.stream.time_base or Fraction(1, 90_000),
        frame_rate=_find_frame_rate(video),
        damaged=damaged or _is_incomplete(video, len(packets)),
        has_errors=has_errors,
    )


def _find_frame_rate(video: OpenVideo) -> Fraction:
    for rate in (video.stream.guessed_rate, video.stream.average_rate, video.stream.base_rate):
        if rate is not None and _FRAME_RATES[0] <= rate <= _FRAME_RATES[1]:
            return Fraction(rate)
    return _FALLBACK_FRAME_RATE


def _is_incomplete(video: OpenVideo, found: int) -> bool:
    # Only mp4 lists every packet; an index of the others names key frames or what was read.
    return video.container_name.startswith("mov") and len(video.stream.index_entries) > found
