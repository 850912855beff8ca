"""The packets of a stream as a hardware decoder takes them, whatever the codec."""

from __future__ import annotations

from typing import Protocol

from clip_decode.decode.nvdec.annexb import AnnexBStream
from clip_decode.decode.nvdec.obu import ObuStream
from clip_decode.decode.nvdec.sequence_parameter_set import SequenceParameters


class Bitstream(Protocol):
    """Converts the packets of one stream, and checks each for what hardware does in another way than FFmpeg."""

    @property
    def sequence(self) -> SequenceParameters:
        """What the stream says of its pictures."""

    @property
    def parameter_sets(self) -> bytes:
        """What must come before a packet that begins a segment: a decoder that is kept may have those of another."""

    def convert(self, data: bytes) -> bytes:
        """A packet as hardware takes it.

        Raises:
            DependenciesUnknown: hardware and FFmpeg decode the packet in different ways.
        """


def open_bitstream(codec: str, extradata: bytes, first_packet: bytes) -> Bitstream:
    """The converter of one stream.

    Args:
        codec: FFmpeg's name.
        extradata: of FFmpeg's decoder: avcC, hvcC, av1C, or parameter sets.
        first_packet: a key frame.

    Raises:
        DependenciesUnknown: a hardware decoder may decode the stream in another way than FFmpeg.
    """
    if codec == "av1":
        return ObuStream(first_packet)
    return AnnexBStream(codec, extradata, first_packet)
