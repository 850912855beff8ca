"""Between the plan and the pictures: packets in decoding order and wanted frames in, frames out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, Protocol

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.cpu import decode_packet
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import Track
from clip_decode.dependencies.packet_dependencies import Unproven
from clip_decode.limits import Limits
from clip_decode.plan.decode_plan import Run

DecoderName = Literal["cpu", "nvdec"]


class Decoder(Protocol):
    """Decodes the runs of one stream, one after the other."""

    @property
    def name(self) -> DecoderName:
        """What a report calls it."""

    def decode(self, run: Run, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """Every frame that comes out of a run, in the order they are shown, with the number of its packet.

        The pixels of a frame are valid until the next one is asked for.

        Args:
            run: the packets.
            wanted: numbers of the packets whose frames are drawn; others may come without pixels.

        Raises:
            Unproven: a packet can not be decoded as a whole.
            TooLarge: a frame with more pixels than the limits allow.
        """


class CpuDecoder:
    """FFmpeg, in this thread."""

    name: DecoderName = "cpu"

    def __init__(self, context: VideoCodecContext, track: Track, limits: Limits) -> None:
        """`context` is a fresh decoder."""
        self._context, self._track, self._limits = context, track, limits
        self._is_fresh = True

    def decode(self, run: Run, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """See Decoder."""
        if not self._is_fresh:
            self._context.flush_buffers()
        self._is_fresh = False
        for number in [*run.packets, None]:
            spans = None if number is None else run.spans.get(number)
            try:
                frames = decode_packet(self._context, self._track, number, self._limits, spans)
            except FFMPEG_ERRORS as error:
                raise Unproven("a packet can not be decoded") from error
            for source, frame in frames:
                if frame.is_corrupt:
                    raise Unproven("a frame is damaged")
                yield source, frame
