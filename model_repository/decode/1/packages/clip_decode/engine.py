"""From the bytes of a video file to clips, in one process and one thread."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, overload

from clip_decode.decode.cpu import CpuDecoder
from clip_decode.decode.full import decode_full
from clip_decode.decode.request import DecodeRequest, DecodeResult
from clip_decode.decode.sparse import decode_sparse
from clip_decode.demux.container import OpenVideo, open_video
from clip_decode.demux.packets import PacketIndex, read_packets
from clip_decode.demux.truncation import is_truncated
from clip_decode.dependencies.analysis import analyze_dependencies
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clip_decode.errors import Declined
from clip_decode.geometry import CLIP, Geometry
from clip_decode.limits import Limits
from clip_decode.picture import Pixels
from clip_decode.picture.clip_buffer import FrameFacts
from clip_decode.plan.timeline import Timeline
from clip_decode.report import Report, VideoFacts
from clip_decode.sampling import Sampling

if TYPE_CHECKING:
    from clip_decode.decode.nvdec.gpu import Nvdec

# Containers that state the size of each packet. The others are broadcast and lose bits on the way: FFmpeg reports that,
# NVDEC does not (measured: MPEG-TS with three wrong bits, benchmarks/results/nvdec.md).
_WITH_PACKET_SIZES = {"mov", "matroska", "flv", "avi"}


@overload
def decode_clips(
    data: bytes | memoryview, geometry: Geometry, sampling: Sampling = ..., limits: Limits = ...
) -> tuple[Pixels, Report]: ...
@overload
def decode_clips(
    data: bytes | memoryview, geometry: Mapping[str, Geometry], sampling: Sampling = ..., limits: Limits = ...
) -> tuple[dict[str, Pixels], Report]: ...
def decode_clips(
    data: bytes | memoryview,
    geometry: Geometry | Mapping[str, Geometry],
    sampling: Sampling = Sampling(),  # noqa: B008 (immutable)
    limits: Limits = Limits(),  # noqa: B008
) -> tuple[Pixels | dict[str, Pixels], Report]:
    """Decode the clips of one video.

    The frames are exactly those that a plain decode of the whole file gives at the selected indices or times. If the
    dependencies of the stream are known, only the packets that these frames depend on are decoded. Everything runs in
    the calling thread.

    Args:
        data: the bytes of a video file.
        geometry: the size of the clips; or several sizes by name, which share one decode.
        sampling: which frames to select, and how to scale them. The default spreads T frames over the whole video.
        limits: upper bounds for the video.

    Returns:
        The clips and a report.

        Clips are uint8 [V, T, S, S, 3], RGB, contiguous. V is views x crops: clip v * crops + c is crop c of view v.
        For a mapping of geometries they are a dict with the same names. The report calls a single geometry "clip".

    Raises:
        VideoError: the bytes cannot be decoded; its subclasses say why.
        InvalidRequest: no geometry, or a span that begins after the video ends.
        TypeError: `data` is a path or an open file.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"data must be the bytes of a video file, got {type(data).__name__}: use Path(...).read_bytes()"
        )
    if isinstance(geometry, Geometry):
        clips, report = _decode_with_cpu(data, DecodeRequest({CLIP: geometry}, sampling, limits))
        return clips[CLIP], report
    return _decode_with_cpu(data, DecodeRequest(geometry, sampling, limits))


def _decode_with_cpu(data: bytes | memoryview, request: DecodeRequest) -> tuple[dict[str, Pixels], Report]:
    started = perf_counter()
    limits = request.limits
    result: DecodeResult | None = None
    with open_video(data, limits) as video:
        index = read_packets(video, limits)
        context = video.stream.codec_context
        try:
            dependencies = analyze_dependencies(index, context, video.container_name)
        except DependenciesUnknown:
            result = decode_full(context, index, index.display_order(), request)
        else:
            with suppress(DependenciesUnknown):
                result = decode_sparse(CpuDecoder(context, index, limits), index, dependencies, request)
    while result is None or not result.is_complete:
        # The frames are not those that the packets promised. Decode everything with a fresh decoder, and once more if
        # the number of frames was still unknown.
        expected_order = index.display_order() if result is None else result.display_order
        with open_video(data, limits) as again:
            result = decode_full(again.stream.codec_context, index, expected_order, request, previous=result)
    return result.buffer.clips, _make_report(data, video, index, result, started)


def decode_clips_with_nvdec(
    nvdec: Nvdec,
    data: bytes | memoryview,
    geometries: Mapping[str, Geometry],
    sampling: Sampling,
    limits: Limits,
) -> tuple[dict[str, Pixels], Report]:
    """Decode the clips of one video by a GPU: the same pixels as `decode_clips`, to the bit, or none.

    Raises:
        Declined: this video needs the CPU.
        DecodeError: as in `decode_clips`.
    """
    started = perf_counter()
    request = DecodeRequest(geometries, sampling, limits)
    with open_video(data, limits) as video:
        context = video.stream.codec_context
        nvdec.check(context)
        if _WITH_PACKET_SIZES.isdisjoint(video.container_name.split(",")):
            raise Declined(f"a stream in {video.container_name}")
        if is_truncated(data, video.container_name):
            raise Declined("the file is truncated, and its last packet may be, too")
        index = read_packets(video, limits)
        try:
            dependencies = analyze_dependencies(index, context, video.container_name)
            with nvdec.open(context, index, dependencies.display_order, limits) as decoder:
                result = decode_sparse(decoder, index, dependencies, request)
        except DependenciesUnknown as reason:
            raise Declined(str(reason)) from reason
    return result.buffer.clips, _make_report(data, video, index, result, started)


def _make_report(
    data: bytes | memoryview, video: OpenVideo, index: PacketIndex, result: DecodeResult, started: float
) -> Report:
    timeline = result.timeline
    return Report(
        **vars(describe_video(video, result.buffer.facts, timeline)),
        timestamps_seconds=result.selection.seconds(timeline),
        frame_numbers=dict(result.selection.indices),
        policy=result.selection.policy,
        quality=result.selection.quality,
        truncated=index.damaged or result.damaged or is_truncated(data, video.container_name),
        method=result.method,
        decoder=result.decoder,
        decoded_frames=result.decoded_frames,
        decode_milliseconds=(perf_counter() - started) * 1000,
    )


def describe_video(video: OpenVideo, frame: FrameFacts | None, timeline: Timeline) -> VideoFacts:
    """Facts about a video. frame: the first one that was written, which there is."""
    assert frame is not None, "no frame was written"
    return VideoFacts(
        codec=video.codec_name,
        container=video.container_name,
        width=frame.width,
        height=frame.height,
        rotation_degrees=frame.rotation_degrees,
        pixel_format=frame.pixel_format,
        fps=timeline.fps,
        duration_seconds=float(timeline.duration),
        frames=timeline.frames,
    )
