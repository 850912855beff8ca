"""From the bytes of a video file to the clips of its windows, one after the other, in one process and one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from clip_decode.decode.cpu import CpuDecoder
from clip_decode.decode.request import DecodeRequest
from clip_decode.decode.sparse import decode_sparse
from clip_decode.decode.window_pass import (
    Method,
    ReadFrames,
    Source,
    WindowPass,
    find_full_order,
    read_fully,
    read_sparsely,
)
from clip_decode.demux.container import OpenVideo, open_video
from clip_decode.demux.packets import scan_packets
from clip_decode.demux.truncation import is_truncated
from clip_decode.dependencies.analysis import analyze_dependencies
from clip_decode.dependencies.packet_dependencies import Dependencies, DependenciesUnknown
from clip_decode.engine import describe_video
from clip_decode.geometry import CLIP, Geometry
from clip_decode.limits import Limits
from clip_decode.picture import Pixels
from clip_decode.picture.clip_buffer import FrameFacts
from clip_decode.plan.decode_plan import plan_segments
from clip_decode.plan.shortcuts import Shortcuts
from clip_decode.plan.timeline import Timeline, build_timeline
from clip_decode.plan.window_plan import Move, count_windows, list_spans, plan_windows
from clip_decode.sampling import Sampling
from clip_decode.windows import PlannedWindow, Span, WindowClips, WindowedVideo, WindowLimits, Windows

# Packets that may be decoded in vain to decode windows alone, or as many as the video has: seconds.
_MIN_VAIN_PACKETS = 10_000


def decode_windows(
    data: bytes | memoryview,
    geometry: Geometry,
    windows: Windows,
    sampling: Sampling = Sampling(),  # noqa: B008 (immutable)
    limits: Limits = Limits(),  # noqa: B008
    window_limits: WindowLimits = WindowLimits(),  # noqa: B008
    *,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[WindowClips]:
    """Decode the clips of every window of a video, one after the other.

    Each window has the pixels that `decode_clips` gives for its start and end. All windows share one pass over the
    packets: each packet is decoded at most once, and each frame is converted once. A stream with unknown dependencies
    is decoded once more before the first window, to find out which frames it has. A stream in which an unexpected frame
    comes out is decoded once more, too.

    Memory holds no packets, but some 500 bytes about each, or 1,200 in AV1 (a tenth or less of a film's average
    packet), and the converted frames of the windows that overlap.

    Args:
        data: the bytes of a video file.
        geometry: the size of the clips.
        windows: which windows.
        sampling: which frames of a window to select, and how to scale them. Its start and end limit all windows
            together.
        limits: upper bounds for the video.
        window_limits: upper bounds for the windows.
        tick: called for each packet that is read, and for each window that is planned, to report progress.

    Raises:
        VideoError: the bytes cannot be decoded; its subclasses say why.
        InvalidRequest: the video has more windows than allowed, or a span that begins after it ends.
    """
    with ExitStack() as resources:
        video = resources.enter_context(open_video(data, limits))
        index = scan_packets(video, limits, lambda packet: tick())

        def open_source() -> Source:
            return resources.enter_context(Source(data, index, limits, tick))

        request = WindowRequest(geometry, windows, sampling, window_limits, tick)
        truncated = index.damaged or is_truncated(data, video.container_name)
        yield from _WindowDecoder(video, request, open_source, truncated=truncated).decode()


@dataclass(frozen=True)
class WindowRequest:
    """The windows wanted of one video, their limits, and what to call while work goes on; see `decode_windows`."""

    geometry: Geometry
    windows: Windows
    sampling: Sampling
    limits: WindowLimits
    tick: Callable[[], None]

    def start_pass(
        self, timeline: Timeline, spans: Sequence[Span], read: ReadFrames, method: Method, move: Move | None = None
    ) -> WindowPass:
        """A pass over a video for these windows."""
        planned = plan_windows(spans, timeline, self.geometry, self.sampling, move, tick=self.tick)
        return WindowPass(timeline, planned, self.geometry, self.sampling, self.limits, read, method)

    def within(self, span: Span, limits: Limits) -> DecodeRequest:
        """The request for one window alone."""
        sampling = replace(self.sampling, start_seconds=span.start_seconds, end_seconds=span.end_seconds)
        return DecodeRequest({CLIP: self.geometry}, sampling, limits)


class _WindowDecoder:
    """Decodes the windows of one video.

    open_source: opens the video once more.
    """

    def __init__(
        self, video: OpenVideo, request: WindowRequest, open_source: Callable[[], Source], *, truncated: bool
    ) -> None:
        self._video, self._request, self._open_source = video, request, open_source
        self._truncated = truncated
        self._sources: list[Source] = []
        self._alone: Source | None = None
        self._full: WindowPass | None = None
        # Packets that may still be decoded in vain.
        self._vain_packets = 0
        self._windows = 0

    def decode(self) -> Iterator[WindowClips]:
        """Every window."""
        source = self._add_source()
        try:
            dependencies = analyze_dependencies(
                source.index, self._video.stream.codec_context, self._video.container_name
            )
        except DependenciesUnknown:
            full = self._start_full()
            for place, window in enumerate(full.windows):
                clips = full.decode(place)
                assert clips is not None, "a full decode has every frame"
                yield self._window(window, clips, full, full.shared.facts)
        else:
            yield from self._decode_sparsely(source, dependencies)

    def _decode_sparsely(self, source: Source, dependencies: Dependencies) -> Iterator[WindowClips]:
        timeline = build_timeline(source.index, dependencies.display_order, source.limits)
        self._vain_packets = max(len(dependencies.packets), _MIN_VAIN_PACKETS)
        spans = self._list_spans(timeline)
        move = Shortcuts(timeline, dependencies).take
        sparse = self._request.start_pass(timeline, spans, read_sparsely(source, dependencies), "selected", move)
        for place, window in enumerate(sparse.windows):
            clips = sparse.decode(place)
            if clips is not None:
                yield self._window(window, clips, sparse, sparse.shared.facts)
            elif (found := self._decode_alone(sparse, window, dependencies)) is not None:
                yield found
            else:
                return

    def _decode_alone(
        self, sparse: WindowPass, window: PlannedWindow, dependencies: Dependencies
    ) -> WindowClips | None:
        """A window with which the shared pass met a surprise, as `decode_clips` decodes it: sparsely, else fully.

        None where the video turns out to end before it.
        """
        wanted = set(window.frame_numbers.ravel().tolist())
        cost = sum(len(segment.packets) for segment in plan_segments(dependencies, wanted))
        # In a video with one key frame every window costs all packets before it.
        if cost <= self._vain_packets:
            self._alone = self._alone or self._add_source()
            index, limits = self._alone.index, self._alone.limits
            self._alone.decoded_frames += cost
            self._alone.rewind()
            try:
                decoder = CpuDecoder(self._alone.open_decoder(), index, limits)
                result = decode_sparse(decoder, index, dependencies, self._request.within(window.span, limits))
            except DependenciesUnknown:
                self._vain_packets -= cost
            else:
                return self._window(window, result.buffer.clips[CLIP], sparse, result.buffer.facts)
        if self._full is None:
            first = sparse.windows[0].span.number
            spans = [planned.span for planned in sparse.windows[window.span.number - first :]]
            self._full = self._start_full(spans)
        full = self._full
        place = window.span.number - full.windows[0].span.number if full.windows else 0
        if place >= len(full.windows):
            return None
        clips = full.decode(place)
        assert clips is not None, "a full decode has every frame"
        return self._window(full.windows[place], clips, full, full.shared.facts)

    def _start_full(self, spans: Sequence[Span] | None = None) -> WindowPass:
        """A full decode for these windows; None: for all."""
        source = self._add_source()
        # Checks the limits before everything is decoded.
        build_timeline(source.index, source.index.display_order(), source.limits)
        order, damaged = find_full_order(source)
        self._truncated = self._truncated or damaged
        timeline = build_timeline(source.index, order, source.limits)
        return self._request.start_pass(
            timeline, self._list_spans(timeline) if spans is None else spans, read_fully(source, order), "whole"
        )

    def _list_spans(self, timeline: Timeline) -> list[Span]:
        request = self._request
        self._windows = count_windows(request.windows, timeline, request.sampling, request.limits)
        return list_spans(request.windows, timeline, request.sampling, self._windows)

    def _add_source(self) -> Source:
        self._sources.append(self._open_source())
        return self._sources[-1]

    def _window(self, window: PlannedWindow, clips: Pixels, by: WindowPass, facts: FrameFacts | None) -> WindowClips:
        video = WindowedVideo(
            **vars(describe_video(self._video, facts, by.timeline)),
            windows=self._windows,
            truncated=self._truncated,
            decoded_frames=sum(source.decoded_frames for source in self._sources),
        )
        return WindowClips(window, clips, by.method, video)
