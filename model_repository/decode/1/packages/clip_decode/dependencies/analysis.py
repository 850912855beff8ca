"""Choosing the analysis for a codec, and checking that timestamps agree with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from av.video.codeccontext import VideoCodecContext

from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.av1 import analyze_av1
from clip_decode.dependencies.h264 import analyze_h264
from clip_decode.dependencies.hevc import analyze_hevc
from clip_decode.dependencies.mpeg import analyze_mjpeg, analyze_mpeg2, analyze_mpeg4
from clip_decode.dependencies.packet_dependencies import RANDOM_ACCESS, Dependencies, DependenciesUnknown
from clip_decode.dependencies.vpx import analyze_vp8, analyze_vp9

# Every packet is an independent picture. Codecs that are not on the list keep state or have unusual packets.
_INTRA_ONLY = {"prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "dvvideo", "png"}
# Containers whose timestamps FFmpeg guesses from the order of packets.
_GUESSED_TIMESTAMPS = {"avi"}
_MAX_REORDER = 32  # Packets to look back for frames displayed later: no codec holds back more than 16.


def analyze_dependencies(index: PacketIndex, context: VideoCodecContext, container_name: str) -> Dependencies:
    """The dependencies of every packet, and the display order.

    Args:
        index: the packets.
        context: FFmpeg's decoder of the stream; it is only read.
        container_name: FFmpeg's name of the container.

    Raises:
        DependenciesUnknown: this stream needs a full decode.
    """
    codec = context.codec.canonical_name
    if index.damaged or index.has_errors or not index.packets:
        raise DependenciesUnknown("damaged packets")
    try:
        dependencies = _analyze_codec(index, context, codec)
    except (EOFError, IndexError) as error:
        raise DependenciesUnknown("a header is truncated") from error
    if not dependencies.packets[0].random_access:
        raise DependenciesUnknown("the stream does not begin with a key frame")
    has_timestamps = container_name not in _GUESSED_TIMESTAMPS and None not in index.pts
    by_pictures = [number for number in dependencies.display_order if number not in index.discarded]
    if has_timestamps or not dependencies.reorders:
        order = [number for number in index.display_order() if dependencies.packets[number].shown]
        if by_pictures and by_pictures != order:
            raise DependenciesUnknown("timestamps contradict the order of the pictures")
    elif by_pictures and codec not in ("h264", "hevc"):  # How many frames its decoder holds back may be a guess.
        order = by_pictures
    else:
        raise DependenciesUnknown("the display order is not known")
    if not order:
        raise DependenciesUnknown("no frame is displayed")
    if order != sorted(order):
        if not dependencies.reorders:
            raise DependenciesUnknown("timestamps do not follow the decoding order")
        _check_reordering(order, index, context, dependencies)
    elif has_timestamps and dependencies.reorders and context.reorder_depth and _has_disposable(dependencies):
        # As in an mp4 file that lacks the offsets of its B frames (ctts).
        raise DependenciesUnknown("timestamps do not reorder frames, but the decoder may")
    return replace(dependencies, display_order=order)


def _analyze_codec(index: PacketIndex, context: VideoCodecContext, codec: str) -> Dependencies:
    extradata = context.extradata or b""
    reorder_depth = context.reorder_depth
    analyses: dict[str, Callable[[Iterator[bytes]], Dependencies]] = {
        "h264": lambda packets: analyze_h264(packets, extradata, reorder_depth=reorder_depth),
        "hevc": lambda packets: analyze_hevc(packets, extradata),
        "av1": lambda packets: analyze_av1(packets, extradata),
        "vp8": analyze_vp8,
        "vp9": analyze_vp9,
        "mpeg1video": analyze_mpeg2,
        "mpeg2video": analyze_mpeg2,
        "mpeg4": lambda packets: analyze_mpeg4(packets, extradata),
        "mjpeg": analyze_mjpeg,
    }
    if codec in analyses:
        return analyses[codec](_read_packets(index, extradata))
    # With pal8, a palette comes only with the packet in which it changes.
    if codec in _INTRA_ONLY and context.pix_fmt != "pal8":
        return Dependencies([RANDOM_ACCESS] * len(index.packets), reorders=False)
    raise DependenciesUnknown(f"no analysis for {codec}")


def _read_packets(index: PacketIndex, extradata: bytes) -> Iterator[bytes]:
    for packet in index.packets:
        # FLV may send another header at any time, and an mp4 may have several. It counts for all packets after it.
        if packet.has_sidedata("new_extradata") and bytes(packet.get_sidedata("new_extradata")) != extradata:
            raise DependenciesUnknown("the header of the codec changes within the stream")
        yield bytes(packet)


def _has_disposable(dependencies: Dependencies) -> bool:
    return any(packet.disposable for packet in dependencies.packets)


def _check_reordering(
    order: list[int], index: PacketIndex, context: VideoCodecContext, dependencies: Dependencies
) -> None:
    """Check that timestamps reorder frames no further than the decoder does."""
    timestamps = [pts for number in order if (pts := index.pts[number]) is not None]
    if len(timestamps) == len(order):
        if len(set(timestamps)) < len(timestamps):
            raise DependenciesUnknown("two frames have one timestamp")
        if any(timestamps[0] < (index.pts[number] or 0) < timestamps[-1] for number in index.discarded):
            # FFmpeg's HEVC decoder drops frames where a part begins, because it lacks others that they refer to.
            raise DependenciesUnknown("an edit list joins parts of the stream")
    decoding_order = sorted(order)
    rank_of = {number: rank for rank, number in enumerate(order)}
    ranks = np.array([rank_of[number] for number in decoding_order])
    if ranks[0] != 0:
        raise DependenciesUnknown("frames are displayed before the first key frame")
    highest = np.maximum.accumulate(ranks)
    is_access_point = np.array([dependencies.packets[number].random_access for number in decoding_order])
    if (ranks < highest)[is_access_point].any():
        raise DependenciesUnknown("a key frame is displayed before a frame that precedes it")
    held_back = np.zeros(len(ranks), dtype=np.int64)
    for distance in range(1, min(_MAX_REORDER, len(ranks))):
        held_back[distance:] += ranks[:-distance] > ranks[distance:]
    farthest = int(np.max(highest - ranks))
    # An H.264 decoder drops a frame that comes later than its reorder depth.
    allowed = context.reorder_depth if context.codec.canonical_name == "h264" else 16
    if int(held_back.max()) > allowed or farthest >= _MAX_REORDER:
        raise DependenciesUnknown("timestamps reorder frames further than the decoder does")
