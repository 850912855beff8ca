"""The whole way from bytes to clips, in one process and one thread."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from .canvas import Canvas
from .container import OpenVideo, open_video
from .errors import InvalidRequest, TooLarge, Truncated
from .frames import Decoded, decode_whole
from .geometry import Geometry
from .limits import Limits
from .orientation import Pixels
from .report import Report
from .sampling import Sampling
from .selection import select_frames
from .timeline import Timeline, build_timeline, predict_timeline
from .track import Track, read_track


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
    if not geometries:
        raise InvalidRequest("no clip was asked for")
    with open_video(data, limits) as video:
        track = read_track(video, limits)
        names = (video.codec_name, video.container_name)
        timeline = predict_timeline(track, limits)
        selection = select_frames(timeline, geometries, sampling)
        canvas = Canvas(geometries, sampling, selection)
        decoded = decode_whole(video.stream.codec_context, track, canvas, limits)
        _check_some(decoded, video, limits)
    walked = len(decoded.order)
    timeline = _observe_timeline(decoded, track, limits)
    if (observed := select_frames(timeline, geometries, sampling)) != selection:
        # The packets promised other frames than came out; now that these are known, fetch them.
        selection = observed
        canvas = Canvas(geometries, sampling, selection)
        with open_video(data, limits) as video:
            decoded = decode_whole(video.stream.codec_context, track, canvas, limits)
            walked += len(decoded.order)
    picture = canvas.picture
    if canvas.missing or picture is None:
        raise Truncated(f"{len(canvas.missing)} frames could be decoded once, but not again")
    report = Report(
        codec=names[0],
        container=names[1],
        width=picture.width,
        height=picture.height,
        rotation_degrees=picture.rotation_degrees,
        pixel_format=picture.pixel_format,
        fps=timeline.fps,
        duration_seconds=float(timeline.duration),
        frames=timeline.frames,
        timestamps_seconds=selection.seconds(timeline),
        truncated=track.damaged or decoded.damaged,
        method="whole",
        decoded_frames=walked,
        decode_milliseconds=(perf_counter() - started) * 1000,
    )
    return canvas.clips, report


def _observe_timeline(decoded: Decoded, track: Track, limits: Limits) -> Timeline:
    numbers = decoded.order
    last = numbers[-1]
    return build_timeline(
        [None if number is None else track.pts[number] for number in numbers],
        last_duration=0 if last is None else track.duration_of(last),
        time_base=track.time_base,
        rate=track.rate,
        limits=limits,
    )


def _check_some(decoded: Decoded, video: OpenVideo, limits: Limits) -> None:
    if decoded.order:
        return
    context = video.stream.codec_context
    if context.width * context.height > limits.max_pixels:
        raise TooLarge(f"a frame has {context.width} x {context.height} pixels, but {limits.max_pixels} are allowed")
    raise Truncated(
        f"the container ({video.container_name}) is known, but not one frame of its "
        f"{video.codec_name} stream can be decoded"
    )
