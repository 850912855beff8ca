"""Decoding every packet of a video, as any player does."""

from __future__ import annotations

from collections.abc import Sequence

from av.video.codeccontext import VideoCodecContext

from clip_decode.decode.cpu import decode_packet
from clip_decode.decode.request import Outcome, Wish
from clip_decode.demux.container import FFMPEG_ERRORS, check_size
from clip_decode.demux.packets import Track
from clip_decode.errors import Truncated
from clip_decode.limits import Limits
from clip_decode.plan.timeline import Timeline, build_timeline


def decode_whole(
    context: VideoCodecContext,
    track: Track,
    promised: Sequence[int | None],
    wish: Wish,
    limits: Limits,
    *,
    before: Outcome | None = None,
) -> Outcome:
    """Decode everything and draw the frames whose number is wanted.

    Which numbers are wanted depends on how many frames there are, which is only known at the end;
    so the numbers are chosen for the frames promised, and the outcome says whether they were kept.
    Packets that fail are stepped over, as every player does.

    Args:
        context: a fresh decoder.
        track: the packets.
        promised: for each frame expected, the packet it is from.
        wish: what is wanted.
        limits: what the video may ask for.
        before: the attempt before this one: its promises are what came out then.

    Raises:
        Truncated: no frame at all comes out.
        TooLarge: a frame with more pixels than the limits allow.
    """
    selection = wish.select(timeline_of(track, promised, limits))
    canvas = wish.prepare(selection)
    order: list[int | None] = []
    damaged = False
    for number in [*range(len(track.packets)), None]:
        try:
            frames = decode_packet(context, track, number, limits)
        except FFMPEG_ERRORS:
            check_size(context.width, context.height, limits)
            damaged = True
            continue
        for source, frame in frames:
            if len(order) in canvas.missing:
                canvas.draw(len(order), frame)
            order.append(source)
            damaged = damaged or frame.is_corrupt
    if not order:
        raise Truncated(
            f"the container is known, but not one frame of its {context.codec.canonical_name} stream can be decoded"
        )
    timeline = timeline_of(track, order, limits)
    observed = wish.select(timeline)
    if before is not None and before.method == "whole" and canvas.missing:
        raise Truncated(f"{len(canvas.missing)} frames could be decoded once, but not again")
    return Outcome(
        canvas=canvas,
        selection=selection,
        timeline=timeline,
        order=order,
        is_complete=observed == selection and not canvas.missing,
        damaged=damaged,
        method="whole",
        decoder="cpu",
        decoded_frames=len(order) + (before.decoded_frames if before else 0),
    )


def timeline_of(track: Track, order: Sequence[int | None], limits: Limits) -> Timeline:
    """The timeline of frames that come from these packets.

    Raises:
        TooLong: more seconds than the limits allow.
    """
    last = order[-1]
    return build_timeline(
        [None if number is None else track.pts[number] for number in order],
        last_duration=0 if last is None else track.duration_of(last),
        time_base=track.time_base,
        rate=track.rate,
        limits=limits,
    )
