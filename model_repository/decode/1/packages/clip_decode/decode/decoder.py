"""The protocol that a decoder implements: segments of packets in, frames out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, Protocol

from av.video.frame import VideoFrame

from clip_decode.plan.decode_plan import DecodeSegment

DecoderName = Literal["cpu", "nvdec"]


class Decoder(Protocol):
    """Decodes the segments of one stream, one after the other."""

    @property
    def name(self) -> DecoderName:
        """The name in a report."""

    @property
    def takes_parts(self) -> bool:
        """Whether it decodes parts of packets, see `DecodeSegment.byte_ranges`."""

    def decode(self, segment: DecodeSegment, wanted: Collection[int]) -> Iterator[tuple[int | None, VideoFrame | None]]:
        """Every frame of a segment in display order, each with the number of its packet.

        The pixels of a frame are valid until the next frame is requested.

        Args:
            segment: the packets.
            wanted: numbers of the packets whose frames are needed; other frames may be None.

        Raises:
            DependenciesUnknown: a packet cannot be decoded without doubt.
            TooLarge: a frame has more pixels than the limits allow.
        """
