"""The sparse decode: only the packets that the wanted frames depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from av.video.frame import VideoFrame

from clip_decode.decode.decoder import Decoder
from clip_decode.decode.request import DecodeRequest, DecodeResult
from clip_decode.demux.ffmpeg_log import FfmpegErrorLog
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import Dependencies, DependenciesUnknown
from clip_decode.plan.decode_plan import DecodeSegment, plan_segments
from clip_decode.plan.timeline import build_timeline


def decode_sparse(
    decoder: Decoder, index: PacketIndex, dependencies: Dependencies, request: DecodeRequest
) -> DecodeResult:
    """Decode the packets that the wanted frames depend on.

    Every packet that is decoded must give its frame, and frames must come in the expected order: leaving packets out
    can only be right if what is decoded is.

    Args:
        decoder: of this stream; it has decoded nothing.
        index: the packets.
        dependencies: between the packets.
        request: the clips wanted.

    Raises:
        DependenciesUnknown: something unexpected came out; the stream needs a full decode.
        InvalidRequest, TooLong, TooLarge: see `decode_clips`.
    """
    timeline = build_timeline(index, dependencies.display_order, request.limits)
    selection = request.select(timeline, dependencies)
    buffer = request.allocate(selection)
    decoded_frames = 0
    with FfmpegErrorLog() as log:
        # Without its frames, a stream is planned by whole packets.
        planned = dependencies if decoder.takes_parts else replace(dependencies, frames=None)
        for segment in plan_segments(planned, selection.wanted):
            for rank, frame in decode_segment(decoder, segment, dependencies, buffer.missing):
                buffer.write(rank, frame)
            if log.has_errors:
                raise DependenciesUnknown("the decoder logged an error")
            decoded_frames += len(segment.packets)
    if buffer.missing:
        raise DependenciesUnknown("a wanted frame did not come")
    return DecodeResult(
        buffer=buffer,
        selection=selection,
        timeline=timeline,
        display_order=dependencies.display_order,
        is_complete=True,
        damaged=False,
        method="selected",
        decoder=decoder.name,
        decoded_frames=decoded_frames,
    )


def decode_segment(
    decoder: Decoder, segment: DecodeSegment, dependencies: Dependencies, wanted: Collection[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """The wanted frames of a segment, each with its index in display order. Its pixels are valid until the next one.

    Args:
        decoder: of this stream.
        segment: the packets to decode.
        dependencies: between all packets.
        wanted: indices of frames. The caller may remove those that it has got.

    Raises:
        DependenciesUnknown: a packet gives no frame, or frames come in another order than expected.
        TooLarge: see `decode_clips`.
    """
    expected = iter(sorted(dependencies.ranks[number] for number in segment.shown))
    numbers = {number for number in segment.shown if dependencies.ranks[number] in wanted}
    for number, frame in decoder.decode(segment, numbers):
        rank = -1 if number is None else dependencies.ranks[number]
        # At once, because a caller may use a frame before the segment ends.
        if rank != next(expected, None):
            raise DependenciesUnknown("a packet gave no frame, or a frame comes out of order")
        if frame is not None and rank in wanted:
            yield rank, frame
    if next(expected, None) is not None:
        raise DependenciesUnknown("a packet gave no frame")
