"""The full decode: every packet, as any player does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.cpu import decode_packet
from clip_decode.decode.request import DecodeRequest, DecodeResult
from clip_decode.demux.container import FFMPEG_ERRORS
from clip_decode.demux.packets import PacketIndex
from clip_decode.errors import InvalidRequest, Truncated
from clip_decode.limits import Limits, check_size
from clip_decode.plan.frame_selection import FrameSelection
from clip_decode.plan.timeline import Timeline, build_timeline


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
    selected for the expected frames, and the result says whether these came. The frames are exact, because shortcuts
    would save nothing.

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
    selection = _expect(build_timeline(index, expected_order, request.limits), request)
    buffer = request.allocate(selection)
    order: list[int | None] = []
    decoding = FullDecode(context, index, request.limits)
    for source, frame in decoding.frames():
        if len(order) in buffer.missing:
            buffer.write(len(order), frame)
        order.append(source)
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
        damaged=decoding.damaged,
        method="whole",
        decoder="cpu",
        decoded_frames=len(order) + (previous.decoded_frames if previous else 0),
    )


def _expect(timeline: Timeline, request: DecodeRequest) -> FrameSelection:
    """The frames wanted of an expected timeline; of the whole video if the span begins after its end.

    Only the frames that come out show where a video ends: where its clock was reset, as in joined MPEG-TS files, the
    packets promise half of its duration.
    """
    try:
        return request.select(timeline)
    except InvalidRequest:
        sampling = replace(request.sampling, start_seconds=None, end_seconds=None)
        return replace(request, sampling=sampling).select(timeline)


class FullDecode:
    """One decode of every packet. A packet that fails is skipped, as in every player.

    Args:
        context: a decoder that has decoded nothing.
        index: the packets.
        limits: for the size of frames.

    Attributes:
        damaged: whether something so far could not be decoded, or only with errors concealed.
    """

    def __init__(self, context: VideoCodecContext, index: PacketIndex, limits: Limits) -> None:
        self._context, self._index, self._limits = context, index, limits
        self.damaged = False

    def frames(self) -> Iterator[tuple[int | None, VideoFrame]]:
        """Every frame in display order, each with the number of its packet; None where that is unknown.

        Raises:
            Truncated: no frame comes out.
            TooLarge: a frame has more pixels than the limits allow.
        """
        count = 0
        for number in [*range(len(self._index.packets)), None]:
            try:
                frames = decode_packet(self._context, self._index, number, self._limits)
            except FFMPEG_ERRORS:
                check_size(self._context.width, self._context.height, self._limits)
                self.damaged = True
                continue
            for source, frame in frames:
                self.damaged = self.damaged or frame.is_corrupt
                count += 1
                yield source, frame
        if not count:
            codec = self._context.codec.canonical_name
            raise Truncated(f"the container is known, but not one frame of its {codec} stream can be decoded")
