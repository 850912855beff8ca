"""HEVC is only decoded sparsely where every picture that others are predicted from is there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext

import av
import pytest

from clip_decode.demux.ffmpeg_log import FfmpegErrorLog
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.hevc import analyze_hevc
from clip_decode.dependencies.hevc_parameter_sets import ReferenceSet, read_hevc_sequence, read_reference_set
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from tests.decode.streams import X265
from tests.decode.synthesis import Clip


@pytest.mark.parametrize(
    "parameters",
    ["bframes=8:b-adapt=0:ref=5", "open-gop=1:keyint=12", "temporal-layers=3", "slices=3:ctu=16", "radl=2:open-gop=0"],
)
def test_a_stream_that_lacks_a_picture_is_told_from_one_that_does_not(parameters: str) -> None:
    """FFmpeg logs an error where a picture is missing, and only there."""
    data = Clip("libx265", options={"x265-params": f"{X265}:{parameters}"}).make()
    with av.open(io.BytesIO(data)) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    for lost in (None, *range(1, len(packets) - 1)):
        left = [packet for number, packet in enumerate(packets) if number != lost]
        context = av.CodecContext.create("hevc", "r")
        context.extradata, context.thread_count = extradata, 1
        with FfmpegErrorLog() as log:
            for packet in left:
                context.decode(av.Packet(packet))
            is_missing = log.has_errors
        with pytest.raises(DependenciesUnknown, match="is missing") if is_missing else nullcontext():
            analyze_hevc(left, extradata)


def test_reference_sets_may_be_predicted_from_others() -> None:
    """st_ref_pic_set of H.265, 7.3.7; the expected sets follow equations 7-61 and 7-62."""
    # Two before and one after: -1 (used), -3 (not used), 2 (used).
    first = read_set("011" + "010" + "1" + "1" + "010" + "0" + "010" + "1", [])
    assert first == {-1: True, -3: False, 2: True}
    # One set back, moved by -1: -1 and -3 used, 2 not kept, and the picture that the first set is of.
    second = read_set("1" + "1" + "1" + "1" + "1" + "00" + "01", [first])
    assert list(second.items()) == [(-1, False), (-2, True), (-4, True)]
    # In a slice, with the number of sets back: moved by 4.
    third = read_set("1" + "010" + "0" + "00100" + "1" + "1" + "00" + "1", [first, second], in_slice=True)
    assert list(third.items()) == [(1, True), (3, True), (4, True)]


def test_a_made_up_size_of_blocks_takes_no_memory() -> None:
    """As 2 to the power of it, the largest number that a header can state takes a gigabyte."""
    for size, is_refused in ((3, False), (4, True), (2**32 - 2, True)):
        with pytest.raises(DependenciesUnknown, match="blocks") if is_refused else nullcontext():
            read_hevc_sequence(BitReader(make_sequence(size)))


def make_sequence(size: int) -> bytes:
    """A sequence parameter set with this log2_min_luma_coding_block_size_minus3, and the shortest values else."""
    # Up to the level; then its number, 4:2:0, a size, no crop, 8 bits, the length of orders, and the kept frames.
    bits = "0" * 104 + "1" + "010" + "1" + "1" + "0" + "1" + "1" + "1" + "0" + "111"
    bits += f"{size + 1:b}".zfill(2 * (size + 1).bit_length() - 1)
    bits += "1" * 5 + "0" + "00" + "0" + "1" + "0"
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def read_set(bits: str, earlier: Sequence[ReferenceSet], *, in_slice: bool = False) -> ReferenceSet:
    padded = bits + "0" * (-len(bits) % 8)
    reader = BitReader(int(padded, 2).to_bytes(len(padded) // 8, "big"))
    return read_reference_set(reader, earlier, in_slice=in_slice)
