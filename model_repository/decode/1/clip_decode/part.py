"""Decoding only the packets that the wanted frames depend on."""

from __future__ import annotations

from collections.abc import Sequence

from av.video.codeccontext import VideoCodecContext

from .canvas import Canvas
from .complaints import Complaints
from .container import FFMPEG_ERRORS
from .frames import decode_packet
from .limits import Limits
from .outcome import Outcome, Wish
from .roles import Structure, Unproven
from .runs import Run, plan_runs
from .track import Track
from .whole import timeline_of


def decode_part(
    context: VideoCodecContext,
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
        context: a fresh decoder.
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
        for place, run in enumerate(runs):
            if place:
                context.flush_buffers()
            _decode_run(context, track, run, rank_of, canvas, limits)
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
        decoded_frames=sum(len(run.packets) for run in runs),
    )


def _decode_run(
    context: VideoCodecContext,
    track: Track,
    run: Run,
    rank_of: dict[int, int],
    canvas: Canvas,
    limits: Limits,
) -> None:
    before = -1
    seen = 0
    for number in [*run.packets, None]:
        try:
            frames = decode_packet(context, track, number, limits, None if number is None else run.spans.get(number))
        except FFMPEG_ERRORS as error:
            raise Unproven("a packet can not be decoded") from error
        for source, frame in frames:
            rank = -1 if source is None else rank_of.get(source, -1)
            if rank <= before or source not in run.shown or frame.is_corrupt:
                raise Unproven("a frame is damaged, or comes in another order than expected")
            before = rank
            seen += 1
            if rank in canvas.missing:
                canvas.draw(rank, frame)
    # Ranks rise strictly, so as many frames as packets shown are just these.
    if seen != len(run.shown):
        raise Unproven("a packet gave no frame")
