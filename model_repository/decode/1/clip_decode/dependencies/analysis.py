"""Which streams can be decoded in part: the proof by codec, and its preconditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from av.video.codeccontext import VideoCodecContext

from clip_decode.demux.packets import Track
from clip_decode.dependencies.av1 import read_av1
from clip_decode.dependencies.h264 import read_h264
from clip_decode.dependencies.hevc import read_hevc
from clip_decode.dependencies.mpeg import read_mjpeg, read_mpeg2, read_mpeg4
from clip_decode.dependencies.packet_dependencies import RESTART, Structure, Unproven
from clip_decode.dependencies.vpx import read_vp8, read_vp9
from clip_decode.plan.timeline import predict_order

# Each packet is a picture of its own; what is not on this list has state or unusual packets.
_INTRA_ONLY = {"prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "dvvideo", "png"}
# Containers whose timestamps FFmpeg guesses from the order of packets.
_GUESSED_TIMES = {"avi"}
_SEARCH = 32  # Packets to look back for frames shown later: no codec keeps more than 16 waiting.


def prove_structure(track: Track, context: VideoCodecContext, container_name: str) -> tuple[Structure, list[int]]:
    """The role of each packet, and the numbers of those shown in the order they are shown.

    Raises:
        Unproven: this stream must be decoded whole.
    """
    codec = context.codec.canonical_name
    if track.damaged or track.doubtful or not track.packets:
        raise Unproven("damaged packets")
    try:
        structure = _read_structure(track, context, codec)
    except (EOFError, IndexError) as error:
        raise Unproven("a header is cut off") from error
    if not structure.roles[0].restart:
        raise Unproven("the stream does not begin with a keyframe")
    stamped = container_name not in _GUESSED_TIMES and None not in track.pts
    if stamped or not structure.reorders:
        order = [number for number in predict_order(track) if structure.roles[number].shown]
    elif structure.order is not None:
        order = [number for number in structure.order if not track.packets[number].is_discard]
    else:
        raise Unproven("the order of frames is not known")
    if not order:
        raise Unproven("no frame is shown")
    if order != sorted(order):
        if not structure.reorders:
            raise Unproven("timestamps do not follow the order of decoding")
        _check_order(order, track, context, codec)
    return structure, order


def _read_structure(track: Track, context: VideoCodecContext, codec: str) -> Structure:
    extradata = context.extradata or b""
    depth = context.reorder_depth
    readers: dict[str, Callable[[Iterator[bytes]], Structure]] = {
        "h264": lambda packets: read_h264(packets, extradata, reorder_depth=depth),
        "hevc": lambda packets: read_hevc(packets, extradata),
        "av1": lambda packets: read_av1(packets, extradata),
        "vp8": read_vp8,
        "vp9": read_vp9,
        "mpeg1video": read_mpeg2,
        "mpeg2video": read_mpeg2,
        "mpeg4": read_mpeg4,
        "mjpeg": read_mjpeg,
    }
    if codec in readers:
        return readers[codec](bytes(packet) for packet in track.packets)
    # A palette comes with the packet in which it changes.
    if codec in _INTRA_ONLY and context.pix_fmt != "pal8":
        return Structure([RESTART] * len(track.packets), reorders=False)
    raise Unproven(f"no proof for {codec}")


def _check_order(order: list[int], track: Track, context: VideoCodecContext, codec: str) -> None:
    """Check that timestamps reorder frames no further than the decoder does."""
    stamps = [track.pts[number] for number in order]
    if None not in stamps and len(set(stamps)) < len(stamps):
        raise Unproven("two frames have one timestamp")
    decoding = sorted(order)
    rank_of = {number: rank for rank, number in enumerate(order)}
    ranks = np.array([rank_of[number] for number in decoding])
    if ranks[0] != 0:
        raise Unproven("frames are shown before the first keyframe")
    waiting = np.zeros(len(ranks), dtype=np.int64)
    for back in range(1, min(_SEARCH, len(ranks))):
        waiting[back:] += ranks[:-back] > ranks[back:]
    farthest = int(np.max(np.maximum.accumulate(ranks) - ranks))
    # H.264 decoders throw away a frame that comes later than the depth they know of.
    allowed = context.reorder_depth if codec == "h264" else 16
    if int(waiting.max()) > allowed or farthest >= _SEARCH:
        raise Unproven("timestamps reorder frames further than the decoder does")
