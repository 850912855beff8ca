"""The packets of the picture stream, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.stream import VideoStream

from clip_decode.demux.container import ANIMATIONS, FFMPEG_ERRORS, OpenVideo, check_encryption
from clip_decode.demux.ffmpeg_log import Complaints
from clip_decode.errors import NotAVideo, TooLong
from clip_decode.limits import Limits

# For streams that state no rate at all; FFmpeg assumes the same for raw streams.
_FALLBACK_RATE = Fraction(25)
_RATES = (Fraction(1, 10), Fraction(1000))


@dataclass(frozen=True)
class Track:
    """Compressed pictures in decoding order; about as many bytes as the file has.

    Attributes:
        packets: as the demuxer gave them, empty ones left out.
        pts: of each packet, in units of `time_base`; None where the container has none.
        time_base: seconds a unit.
        rate: frames a second that the container states, or a guess.
        damaged: whether reading stopped early or a packet is not whole.
        doubtful: whether the demuxer complained; what it then left out is not known.
    """

    packets: Sequence[Packet[VideoStream]]
    pts: Sequence[int | None]
    time_base: Fraction
    rate: Fraction
    damaged: bool
    doubtful: bool

    def duration_of(self, number: int) -> int:
        """Duration of a packet in units of `time_base`, 0 if unknown."""
        return max(self.packets[number].duration or 0, 0)


def read_track(video: OpenVideo, limits: Limits) -> Track:
    """Walk the container once.

    Raises:
        TooLong: more packets than frames are allowed.
        Encrypted: a packet is; the first ones need not be.
        NotAVideo: an image that could move has one picture only.
    """
    packets: list[Packet[VideoStream]] = []
    damaged = doubtful = False
    with Complaints() as complaints:
        try:
            for packet in video.container.demux(video.stream):
                doubtful = doubtful or complaints.heard
                if packet.size == 0:
                    continue  # The end, or a frame dropped in AVI, which would end the decoder.
                check_encryption(packet)
                damaged = damaged or packet.is_corrupt
                packets.append(packet)
                if len(packets) > limits.max_frames:
                    raise TooLong(f"the video has more than the {limits.max_frames} frames allowed")
        except FFMPEG_ERRORS:
            damaged = True
        doubtful = doubtful or complaints.heard
    still = ANIMATIONS.get(video.container_name)
    if still and len(packets) == 1:
        raise NotAVideo(f"the bytes are {still} that does not move, not a video")
    return Track(
        packets=packets,
        pts=[packet.pts for packet in packets],
        time_base=video.stream.time_base or Fraction(1, 90_000),
        rate=_find_rate(video),
        damaged=damaged or _misses_packets(video, len(packets)),
        doubtful=doubtful,
    )


def _find_rate(video: OpenVideo) -> Fraction:
    for rate in (video.stream.guessed_rate, video.stream.average_rate, video.stream.base_rate):
        if rate is not None and _RATES[0] <= rate <= _RATES[1]:
            return Fraction(rate)
    return _FALLBACK_RATE


def _misses_packets(video: OpenVideo, found: int) -> bool:
    # Only an mp4 lists every packet; an index of the others names keyframes or what was seen.
    return video.container_name.startswith("mov") and len(video.stream.index_entries) > found
