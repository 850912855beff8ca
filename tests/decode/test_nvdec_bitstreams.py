"""Streams that NVDEC's parser takes in another way than FFmpeg are found by their bits, and left to a CPU."""

from __future__ import annotations

import io
from contextlib import nullcontext

import av
import pytest

from clip_decode.decode.nvdec.annexb import AnnexBStream
from clip_decode.decode.nvdec.sample_pictures import read_sample
from clip_decode.decode.nvdec.sequence_parameter_set import read_h264_parameters, read_hevc_parameters
from clip_decode.dependencies.bit_reader import BitReader
from clip_decode.dependencies.h264 import read_h264_sequence
from clip_decode.dependencies.nal_units import read_hvcc_sets, split_units, unescape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from tests.decode.streams import X265
from tests.decode.synthesis import Clip


def sei(payload: int) -> bytes:
    return b"\0\0\x01\x06" + bytes([payload, 1, 0x55, 0x80])


@pytest.mark.parametrize(("payload", "is_taken"), [(5, True), (19, False), (47, False)])
def test_sei_messages_that_change_pixels_are_for_a_cpu(payload: int, is_taken: bool) -> None:
    packet = Clip(container="h264", frames=1).make()
    bitstream = AnnexBStream("h264", b"", packet)
    if is_taken:
        assert sei(payload)[3:-1] in bitstream.convert(sei(payload) + packet)
    else:
        with pytest.raises(DependenciesUnknown):
            bitstream.convert(sei(payload) + packet)


def test_h264_that_keeps_no_frame_counts_as_one_that_does_not_state_it() -> None:
    """NVDEC's parser takes max_dec_frame_buffering 0 for the most that the level allows."""
    packet = Clip(container="h264", frames=1, options={"x264-params": "bframes=0:ref=1"}).make()
    unit = next(unit for unit in split_units(packet, 0) if unit[0] & 31 == 7)
    assert read_h264_parameters(unit).kept_frames == 1
    bits = f"{int.from_bytes(unit, 'big'):0{8 * len(unit)}b}".rstrip("0")
    assert bits.endswith("010" + "1"), "the number 1, and the end"
    bits = bits[:-4] + "1" + "1"
    bits += "0" * (-len(bits) % 8)
    assert read_h264_parameters(int(bits, 2).to_bytes(len(bits) // 8, "big")).kept_frames == 16


@pytest.mark.parametrize("hrd", ["", ":nal-hrd=vbr:vbv-bufsize=2000:vbv-maxrate=1000"])
@pytest.mark.parametrize(
    ("structure", "is_taken"),
    [("00000", True), ("011100", True), ("0000100", True), ("0000101", False), ("00010", False)],
)
def test_h264_pictures_that_are_shown_as_fields_are_for_a_cpu(hrd: str, structure: str, is_taken: bool) -> None:
    """pic_struct and ct_type of a picture timing message, in a stream whose pictures are frames (H.264, D.1.3)."""
    with av.open(io.BytesIO(Clip(options={"x264-params": f"pic-struct=1{hrd}"}).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packet = bytes(next(container.demux(video=0)))
    bitstream = AnnexBStream("h264", extradata, packet)
    assert bitstream.sequence.structure_offset is not None
    assert (bitstream.sequence.structure_offset > 0) == bool(hrd)
    bitstream.convert(packet)
    bits = "1" * bitstream.sequence.structure_offset + structure
    bits += "0" * (-len(bits) % 8)
    message = bytes([6, 1, len(bits) // 8]) + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\x80"
    with nullcontext() if is_taken else pytest.raises(DependenciesUnknown, match="shown as fields"):
        bitstream.convert(len(message).to_bytes(4, "big") + message + packet)


def test_hevc_that_may_be_interlaced_is_for_a_cpu() -> None:
    """general_progressive_source_flag and general_interlaced_source_flag, 7.3.3 of H.265."""
    units = split_units(read_sample("hevc", 8).data, 0)
    unit = bytearray(next(unescape(unit) for unit in units if unit[0] >> 1 == 33))
    assert read_hevc_parameters(bytes(unit)) == read_sample("hevc", 8).sequence
    assert unit[8] >> 6 == 0b10
    for flags in (0b00, 0b01, 0b11):
        unit[8] = unit[8] & 0x3F | flags << 6
        with pytest.raises(DependenciesUnknown, match="progressive"):
            read_hevc_parameters(bytes(unit))


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        ([(0, 0, 0), (5, 0, 0), (9, 0, 0)], ""),
        ([(0, 0, 0), (9, 0, 0), (5, 0, 0)], "not in the order of their blocks"),
        ([(0, 0, 0), (5, 0, 0), (5, 0, 0)], "not in the order of their blocks"),
        ([(0, 0, 0), (5, 1, 0)], "differ in their parameters"),
        ([(0, 0, 0), (5, 0, 1)], "differ in their parameters"),
    ],
)
def test_h264_slices_that_nvdecs_parser_takes_in_another_way_are_for_a_cpu(
    slices: list[tuple[int, int, int]], reason: str
) -> None:
    """Each slice: its first block, the number of its picture parameter set, and its frame number."""
    sample = read_sample("h264", 8)
    sequence = next(unit for unit in split_units(sample.data, 0) if unit[0] & 31 == 7)
    size = read_h264_sequence(BitReader(unescape(sequence[4:])), profile=sequence[1]).frame_number_bits
    packet = b""
    for block, picture, frame_number in slices:
        golomb = [f"{value + 1:b}" for value in (block, 7, picture)]
        bits = "".join("0" * (len(code) - 1) + code for code in golomb) + f"{frame_number:0{size}b}"
        bits += "1" * (-len(bits) % 8 + 8)
        packet += b"\0\0\x01\x65" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    with pytest.raises(DependenciesUnknown, match=reason) if reason else nullcontext():
        AnnexBStream("h264", b"", sample.data).convert(packet)


@pytest.mark.parametrize(("level", "is_taken"), [(30, False), (60, True), (120, True), (255, True)])
def test_hevc_that_keeps_more_frames_than_its_level_allows_is_for_a_cpu(level: int, is_taken: bool) -> None:
    """Level 1 has room for six frames of 320 x 256 pixels, level 2 for eight (H.265, A.4.2)."""
    options = {"x265-params": f"{X265}:bframes=8:b-adapt=0:ref=6"}
    with av.open(io.BytesIO(Clip("libx265", width=320, height=256, options=options).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
    unit = bytearray(next(unescape(unit) for unit in read_hvcc_sets(extradata) if unit[0] >> 1 == 33))
    assert read_hevc_parameters(bytes(unit)).kept_frames == 7
    unit[14] = level
    with nullcontext() if is_taken else pytest.raises(DependenciesUnknown, match="more than its level"):
        assert read_hevc_parameters(bytes(unit)).level == level


@pytest.mark.parametrize(("data", "is_taken"), [(b"\0\0\x03", True), (b"\0\0\x01", False), (b"\0\0\0", False)])
def test_a_unit_that_contains_a_start_code_is_for_a_cpu(data: bytes, is_taken: bool) -> None:
    with av.open(io.BytesIO(Clip(container="mp4", frames=1).make())) as container:
        extradata = container.streams.video[0].codec_context.extradata or b""
        packet = bytes(next(container.demux(video=0)))
    bitstream = AnnexBStream("h264", extradata, packet)
    unit = b"\x0c" + data + b"\xff"  # Filler data.
    damaged = packet + len(unit).to_bytes(4, "big") + unit
    if is_taken:
        assert unit in bitstream.convert(damaged)
    else:
        with pytest.raises(DependenciesUnknown, match="start code"):
            bitstream.convert(damaged)
