"""The whole way from bytes to clips, in one process and one thread."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from clip_decode.decode.decoder import CpuDecoder
from clip_decode.decode.full import decode_whole
from clip_decode.decode.request import Outcome, Wish
from clip_decode.decode.sparse import decode_part
from clip_decode.demux.container import OpenVideo, open_video
from clip_decode.demux.packets import Track, read_track
from clip_decode.demux.truncation import is_cut_off
from clip_decode.dependencies.analysis import prove_structure
from clip_decode.dependencies.packet_dependencies import Unproven
from clip_decode.errors import Declined, InvalidRequest
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.picture.orientation import Pixels
from clip_decode.plan.timeline import predict_order
from clip_decode.report import Report
from clip_decode.sampling import Sampling

if TYPE_CHECKING:
    from clip_decode.decode.nvdec.decoder import Nvdec

# Containers that say how long each packet is. Streams without are broadcast and lose bits on the way, of which FFmpeg
# tells where NVDEC is silent (measured: MPEG-TS with three wrong bits, benchmarks/results/nvdec.md).
_WITH_SIZES = {"mov", "matroska", "flv", "avi"}


def decode_clips(
    data: bytes | memoryview,
    geometries: Mapping[str, Geometry],
    sampling: Sampling,
    limits: Limits,
) -> tuple[dict[str, Pixels], Report]:
    """Decode one video for every geometry asked for.

    The frames are exactly those that a plain decode of the whole file gives at the chosen numbers
    or moments. Views come first, then their crops: clip v * crops + c is view v, crop c.

    Args:
        data: the bytes of a video file.
        geometries: clips to make, by name.
        sampling: which moments, and how to scale.
        limits: what the video may ask for.

    Returns:
        By name, uint8 [V, T, S, S, 3], RGB, contiguous; and what was decoded.

    Raises:
        DecodeError: its subclass says why these bytes, or this request, can not be answered.
    """
    started = perf_counter()
    wish = _wish(geometries, sampling)
    outcome: Outcome | None = None
    with open_video(data, limits) as video:
        track = read_track(video, limits)
        context = video.stream.codec_context
        try:
            structure, order = prove_structure(track, context, video.container_name)
        except Unproven:
            outcome = decode_whole(context, track, predict_order(track), wish, limits)
        else:
            with suppress(Unproven):
                decoder = CpuDecoder(context, track, limits)
                outcome = decode_part(decoder, track, structure, order, wish, limits)
    while outcome is None or not outcome.is_complete:
        # What the packets promised is not what came out. Begin again with a fresh decoder, now
        # decoding everything, and at last with the order of frames known.
        promised = predict_order(track) if outcome is None else outcome.order
        with open_video(data, limits) as again:
            outcome = decode_whole(again.stream.codec_context, track, promised, wish, limits, before=outcome)
    return outcome.canvas.clips, _report(data, video, track, outcome, started)


def decode_clips_with_nvdec(
    nvdec: Nvdec,
    data: bytes | memoryview,
    geometries: Mapping[str, Geometry],
    sampling: Sampling,
    limits: Limits,
) -> tuple[dict[str, Pixels], Report]:
    """The same as `decode_clips`, to the bit, or nothing.

    Raises:
        Declined: a CPU must decode this video.
        DecodeError: as a CPU would say.
    """
    started = perf_counter()
    wish = _wish(geometries, sampling)
    with open_video(data, limits) as video:
        context = video.stream.codec_context
        nvdec.check(context)
        if _WITH_SIZES.isdisjoint(video.container_name.split(",")):
            raise Declined(f"a stream in {video.container_name}")
        if is_cut_off(data, video.container_name):
            raise Declined("the file ends too early, and so may its last packet")
        track = read_track(video, limits)
        try:
            structure, order = prove_structure(track, context, video.container_name)
            with nvdec.open(context, track, order, limits) as decoder:
                outcome = decode_part(decoder, track, structure, order, wish, limits)
        except Unproven as reason:
            raise Declined(str(reason)) from reason
    return outcome.canvas.clips, _report(data, video, track, outcome, started)


def _wish(geometries: Mapping[str, Geometry], sampling: Sampling) -> Wish:
    if not geometries:
        raise InvalidRequest("no clip was asked for")
    return Wish(geometries, sampling)


def _report(data: bytes | memoryview, video: OpenVideo, track: Track, outcome: Outcome, started: float) -> Report:
    picture = outcome.canvas.picture
    assert picture is not None, "a complete outcome has drawn a frame"
    timeline = outcome.timeline
    return Report(
        codec=video.codec_name,
        container=video.container_name,
        width=picture.width,
        height=picture.height,
        rotation_degrees=picture.rotation_degrees,
        pixel_format=picture.pixel_format,
        fps=timeline.fps,
        duration_seconds=float(timeline.duration),
        frames=timeline.frames,
        timestamps_seconds=outcome.selection.seconds(timeline),
        truncated=track.damaged or outcome.damaged or is_cut_off(data, video.container_name),
        method=outcome.method,
        decoder=outcome.decoder,
        decoded_frames=outcome.decoded_frames,
        decode_milliseconds=(perf_counter() - started) * 1000,
    )
