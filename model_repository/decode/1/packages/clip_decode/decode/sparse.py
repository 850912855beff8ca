"""The sparse decode: only the packets that the wanted frames depend on."""

from __future__ import annotations

from clip_decode.decode.decoder import Decoder
from clip_decode.decode.request import DecodeRequest, DecodeResult
from clip_decode.demux.ffmpeg_log import FfmpegErrorLog
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import Dependencies, DependenciesUnknown
from clip_decode.picture.clip_buffer import ClipBuffer
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
    segments = plan_segments(dependencies, selection.wanted)
    rank_of = {number: rank for rank, number in enumerate(dependencies.display_order)}
    with FfmpegErrorLog() as log:
        for segment in segments:
            _decode_segment(decoder, segment, dependencies, rank_of, buffer)
            if log.has_errors:
                raise DependenciesUnknown("the decoder logged an error")
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
        decoded_frames=sum(len(segment.packets) for segment in segments),
    )


def _decode_segment(
    decoder: Decoder,
    segment: DecodeSegment,
    dependencies: Dependencies,
    rank_of: dict[int, int],
    buffer: ClipBuffer,
) -> None:
    last_rank = -1
    count = 0
    wanted = {dependencies.display_order[rank] for rank in buffer.missing}
    for number, frame in decoder.decode(segment, wanted):
        rank = -1 if number is None else rank_of.get(number, -1)
        if rank <= last_rank or number not in segment.shown:
            raise DependenciesUnknown("a frame comes out of order")
        last_rank = rank
        count += 1
        if frame is not None and rank in buffer.missing:
            buffer.write(rank, frame)
    # Ranks increase strictly, so if there are as many frames as packets shown, they are the same.
    if count != len(segment.shown):
        raise DependenciesUnknown("a packet gave no frame")
