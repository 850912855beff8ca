"""The full decode: every packet, as any player does it."""

from __future__ import annotations

from collections.abc import Sequence

from av.video.codeccontext import VideoCodecContext

from clip_decode.decode.cpu import decode_packet
from clip_decode.decode.request import DecodeRequest, DecodeResult
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import PacketIndex
from clip_decode.errors import Truncated
from clip_decode.limits import check_size
from clip_decode.plan.timeline import build_timeline


def decode_full(
    context: VideoCodecContext,
    index: PacketIndex,
    expected_order: Sequence[int | None],
    request: DecodeRequest,
    *,
    previous: DecodeResult | None = None,
) -> DecodeResult:
    """Decode every packet, and keep the frames whose index is wanted.

    Which indices are wanted depends on the number of frames, which is only known at the end. So the indices are
    selected for the expected frames, and the result says whether these came. Packets that fail are skipped, as in every
    player. The frames are exact, because shortcuts would save nothing.

    Args:
        context: a decoder that has decoded nothing.
        index: the packets.
        expected_order: for each expected frame in display order, the number of its packet.
        request: the clips wanted.
        previous: the attempt before this one, whose frames are now expected.

    Raises:
        Truncated: no frame comes out.
        InvalidRequest, TooLong, TooLarge: see `decode_clips`.
    """
    selection = request.select(build_timeline(index, expected_order, request.limits))
    buffer = request.allocate(selection)
    order: list[int | None] = []
    damaged = False
    for number in [*range(len(index.packets)), None]:
        try:
            frames = decode_packet(context, index, number, request.limits)
        except FFMPEG_ERRORS:
            check_size(context.width, context.height, request.limits)
            damaged = True
            continue
        for source, frame in frames:
            if len(order) in buffer.missing:
                buffer.write(len(order), frame)
            order.append(source)
            damaged = damaged or frame.is_corrupt
    if not order:
        raise Truncated(
            f"the container is known, but not one frame of its {context.codec.canonical_name} stream can be decoded"
        )
    timeline = build_timeline(index, order, request.limits)
    observed = request.select(timeline)
    if previous is not None and previous.method == "whole" and buffer.missing:
        raise Truncated(f"{len(buffer.missing)} frames could be decoded once, but not again")
    return DecodeResult(
        buffer=buffer,
        selection=selection,
        timeline=timeline,
        display_order=order,
        is_complete=observed == selection and not buffer.missing,
        damaged=damaged,
        method="whole",
        decoder="cpu",
        decoded_frames=len(order) + (previous.decoded_frames if previous else 0),
    )
