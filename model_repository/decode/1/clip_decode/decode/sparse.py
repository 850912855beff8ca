"""Decoding only the packets that the wanted frames depend on."""

from __future__ import annotations

from collections.abc import Sequence

from clip_decode.decode.decoder import Decoder
from clip_decode.decode.full import timeline_of
from clip_decode.decode.request import Outcome, Wish
from clip_decode.demux.ffmpeg_log import Complaints
from clip_decode.demux.packets import Track
from clip_decode.dependencies.packet_dependencies import Structure, Unproven
from clip_decode.limits import Limits
from clip_decode.picture.clip_buffer import Canvas
from clip_decode.plan.decode_plan import Run, plan_runs


def decode_part(
    decoder: Decoder,
    track: Track,
    structure: Structure,
    order: Sequence[int],
    wish: Wish,
    limits: Limits,
) -> Outcome:
    """Decode what the wanted frames need and draw them.

    Every packet that is decoded must give its frame, and frames must come in the order expected:
    what is left out can only be right if what is decoded is.

    Args:
        decoder: of this stream, fresh.
        track: the packets.
        structure: the role of each packet.
        order: numbers of the packets that are shown, in the order they are shown.
        wish: what is wanted.
        limits: what the video may ask for.

    Raises:
        Unproven: something else came out; everything must be decoded.
        TooLarge: a frame with more pixels than the limits allow.
    """
    timeline = timeline_of(track, order, limits)
    selection = wish.select(timeline)
    canvas = wish.prepare(selection)
    runs = plan_runs(structure, order, selection.wanted)
    rank_of = {number: rank for rank, number in enumerate(order)}
    with Complaints() as complaints:
        for run in runs:
            _draw_run(decoder, run, order, rank_of, canvas)
            if complaints.heard:
                raise Unproven("the decoder complained")
    if canvas.missing:
        raise Unproven("a wanted frame did not come")
    return Outcome(
        canvas=canvas,
        selection=selection,
        timeline=timeline,
        order=order,
        is_complete=True,
        damaged=False,
        method="selected",
        decoder=decoder.name,
        decoded_frames=sum(len(run.packets) for run in runs),
    )


def _draw_run(decoder: Decoder, run: Run, order: Sequence[int], rank_of: dict[int, int], canvas: Canvas) -> None:
    before = -1
    seen = 0
    wanted = {order[rank] for rank in canvas.missing}
    for source, frame in decoder.decode(run, wanted):
        rank = -1 if source is None else rank_of.get(source, -1)
        if rank <= before or source not in run.shown:
            raise Unproven("a frame comes in another order than expected")
        before = rank
        seen += 1
        if frame is not None and rank in canvas.missing:
            canvas.draw(rank, frame)
    # Ranks rise strictly, so as many frames as packets shown are just these.
    if seen != len(run.shown):
        raise Unproven("a packet gave no frame")
