"""The packets of the video stream, read once."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    """Every packet of the video stream, in decoding order.

    A packet is known by its number: its place in `packets`.

    Attributes:
        packets: from the demuxer, without empty ones. `read_packets` keeps all; see also `PacketStream`.
        pts: presentation timestamp of each packet in units of `time_base`; None where the container states none.
        durations: of each packet in units of `time_base`; 0 if unknown.
        discarded: numbers of the packets that an edit list discards: they are decoded and not displayed.
        time_base: seconds a unit.
        frame_rate: frames a second that the container states, or a guess.
        damaged: whether reading stopped early or a packet is incomplete.
        has_errors: whether FFmpeg logged an error; what it then left out is unknown.
    """

    packets: Sequence[Packet[VideoStream]]
    pts: Sequence[int | None]
    durations: Sequence[int]
    discarded: frozenset[int]
    time_base: Fraction
    frame_rate: Fraction
    damaged: bool
    has_errors: bool

    def display_order(self) -> list[int]:
        """Packet numbers in display order: by timestamp if every packet has one, else in decoding order.

        Packets that an edit list discards are not displayed.

        Raises:
            Truncated: no packet is displayed.
        """
        shown = [number for number in range(len(self.pts)) if number not in self.discarded]
        if not shown:
            raise Truncated("the container is known, but it holds not one whole frame")
        if any(self.pts[number] is None for number in shown):
            return shown
        return sorted(shown, key=lambda number: (self.pts[number], number))


def read_packets(video: OpenVideo, limits: Limits) -> PacketIndex:
    """Read every packet of the video stream, and keep it: that takes about as much memory as the file has bytes.

    Raises:
        TooLong: more packets than frames are allowed.
        Encrypted: a packet is encrypted; the first ones need not be.
        NotAVideo: an image format that holds a single image.
    """
    packets: list[Packet[VideoStream]] = []
    index = scan_packets(video, limits, packets.append)
    return replace(index, packets=packets)


def scan_packets(video: OpenVideo, limits: Limits, visit: Callable[[Packet[VideoStream]], None]) -> PacketIndex:
    """Read every packet once, and keep what is known about it. The index has no `packets` yet.

    visit: called with each packet.

    Raises:
        As `read_packets`.
    """
    pts: list[int | None] = []
    durations, discarded = array("q"), set[int]()
    damaged = has_errors = False
    with FfmpegErrorLog() as log:
        try:
            for packet in demux_packets(video):
                has_errors = has_errors or log.has_errors
                check_encryption(packet)
                damaged = damaged or packet.is_corrupt
                if packet.is_discard:
                    discarded.add(len(pts))
                pts.append(packet.pts)
                durations.append(max(packet.duration or 0, 0))
                visit(packet)
                if len(pts) > limits.max_frames:
                    raise TooLong(f"the video has more than the {limits.max_frames} frames allowed")
        except FFMPEG_ERRORS:
            damaged = True
        has_errors = has_errors or log.has_errors
    still = ANIMATIONS.get(video.container_name)
    if still and len(pts) == 1:
        raise NotAVideo(f"the bytes are {still} that is not animated, not a video")
    return PacketIndex(
        packets=(),
        pts=pts,
        durations=durations,
        discarded=frozenset(discarded),
        time_base=video.stream.time_base or Fraction(1, 90_000),
        frame_rate=_find_frame_rate(video),
        damaged=damaged or _is_incomplete(video, len(pts)),
        has_errors=has_errors,
    )


def demux_packets(video: OpenVideo) -> Iterator[Packet[VideoStream]]:
    """The packets of the video stream in decoding order, without empty ones. Raises FFMPEG_ERRORS."""
    for packet in video.container.demux(video.stream):
        # An empty one is the end, or a dropped frame in AVI, which would end the decoder.
        if packet.size:
            yield packet


def _find_frame_rate(video: OpenVideo) -> Fraction:
    for rate in (video.stream.guessed_rate, video.stream.average_rate, video.stream.base_rate):
        if rate is not None and _FRAME_RATES[0] <= rate <= _FRAME_RATES[1]:
            return Fraction(rate)
    return _FALLBACK_FRAME_RATE


def _is_incomplete(video: OpenVideo, found: int) -> bool:
    # Only mp4 lists every packet; an index of the others names key frames or what was read.
    return video.container_name.startswith("mov") and len(video.stream.index_entries) > found
