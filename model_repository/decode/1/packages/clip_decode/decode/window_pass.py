"""One pass over a video for all of its windows: by the sparse decode, or by the full one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.cpu import CpuDecoder
from clip_decode.decode.full import FullDecode
from clip_decode.decode.sparse import decode_segment
from clip_decode.demux.container import open_video
from clip_decode.demux.ffmpeg_log import FfmpegErrorLog
from clip_decode.demux.packet_stream import PacketStream
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import Dependencies, DependenciesUnknown
from clip_decode.errors import InvalidRequest, Truncated
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.picture import Pixels
from clip_decode.picture.shared_frames import SharedFrames
from clip_decode.plan.decode_plan import plan_segments
from clip_decode.plan.timeline import Timeline
from clip_decode.plan.window_plan import count_shared
from clip_decode.sampling import Sampling
from clip_decode.windows import PlannedWindow, WindowLimits

# Frames with their number in display order; None in place of a frame that does not come.
Frames = Iterator[tuple[int, VideoFrame | None]]
# Given the wanted frame numbers, decodes these frames.
ReadFrames = Callable[[list[int]], Frames]
Method = Literal["selected", "whole"]


class Source:
    """The packets of a video, and fresh decoders of it, one at a time. A context manager: it closes what it opened.

    Attributes:
        index: the packets.
        decoded_frames: number of frames decoded so far.
    """

    def __init__(
        self, data: bytes | memoryview, index: PacketIndex, limits: Limits, tick: Callable[[], None] = lambda: None
    ) -> None:
        """index: of `scan_packets`. tick: called for each packet that is read."""
        self._data, self.limits = data, limits
        self._packets = PacketStream(data, len(index.pts), limits, tick)
        self.index = replace(index, packets=self._packets)
        self.decoded_frames = 0
        self._opened = ExitStack()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        self._packets.close()

    def rewind(self) -> None:
        """The next decoder begins with the first packet."""
        self._packets.close()

    def open_decoder(self) -> VideoCodecContext:
        """A decoder that has decoded nothing. The one before is closed."""
        self._opened.close()
        if not self._packets.is_open:
            # Here, where nobody takes what FFmpeg logs meanwhile for an error of decoding.
            self._packets.rewind()
        return self._opened.enter_context(open_video(self._data, self.limits)).stream.codec_context


class WindowPass:
    """Decodes windows one after the other, each frame once.

    Args:
        timeline: of all frames.
        windows: to decode, in order.
        geometry, sampling: of the clips.
        limits: of the windows.
        read_frames: decodes the frames.
        method: how it decodes them.

    Raises:
        InvalidRequest: the windows share more frames than the limits allow.
    """

    def __init__(
        self,
        timeline: Timeline,
        windows: Sequence[PlannedWindow],
        geometry: Geometry,
        sampling: Sampling,
        limits: WindowLimits,
        read_frames: ReadFrames,
        method: Method,
    ) -> None:
        self.timeline, self.windows, self.method = timeline, windows, method
        _check_memory(windows, timeline.frames, geometry, sampling, limits)
        self.shared = SharedFrames(geometry, sampling, (w.frame_numbers for w in windows), timeline.frames)
        self._frames = read_frames(self.shared.wanted)
        self._next = 0

    def decode(self, place: int) -> Pixels | None:
        """The clips of window `place` in `windows`; None where they cannot be decoded so. Places may only increase."""
        while self._next < place:
            self._decode_next()
        return self._decode_next()

    def _decode_next(self) -> Pixels | None:
        numbers = self.windows[self._next].frame_numbers
        self._next += 1
        missing = self.shared.missing(numbers)
        while missing:
            number, frame = next(self._frames, (None, None))
            if number is None:
                for lost in missing:
                    self.shared.lose(lost)
                break
            if frame is None:
                self.shared.lose(number)
            else:
                self.shared.add(number, frame)
            missing.discard(number)
        return self.shared.take(numbers)


def read_sparsely(source: Source, dependencies: Dependencies) -> ReadFrames:
    """For a WindowPass: decodes the packets that wanted frames depend on. A segment with a surprise loses frames."""

    def read(wanted: list[int]) -> Frames:
        is_wanted = _mark(wanted, dependencies.display_order)
        decoder: CpuDecoder | None = None
        for segment in plan_segments(dependencies, wanted):
            decoder = decoder or CpuDecoder(source.open_decoder(), source.index, source.limits)
            missing = {rank for number in segment.shown if is_wanted[rank := dependencies.ranks[number]]}
            try:
                with FfmpegErrorLog() as log:
                    for rank, frame in decode_segment(decoder, segment, dependencies, missing):
                        if log.has_errors:
                            raise DependenciesUnknown("the decoder logged an error")
                        yield rank, frame
                        missing.discard(rank)
                    if log.has_errors or missing:
                        raise DependenciesUnknown("the decoder logged an error, or a wanted frame did not come")
            except DependenciesUnknown:
                decoder = None
                for rank in sorted(missing):
                    yield rank, None
            source.decoded_frames += len(segment.packets)

    return read


def read_fully(source: Source, order: Sequence[int | None]) -> ReadFrames:
    """For a WindowPass: decodes every packet. order: what `find_full_order` returned."""

    def read(wanted: list[int]) -> Frames:
        is_wanted = _mark(wanted, order)
        frames = FullDecode(source.open_decoder(), source.index, source.limits).frames()
        for number, (packet, frame) in enumerate(frames):
            source.decoded_frames += 1
            if number >= len(order) or packet != order[number]:
                raise Truncated(f"frame {number} could be decoded once, but not again")
            if is_wanted[number]:
                yield number, frame

    return read


def find_full_order(source: Source) -> tuple[list[int | None], bool]:
    """For each frame of a full decode in display order, the number of its packet; and whether something was damaged."""
    decoding = FullDecode(source.open_decoder(), source.index, source.limits)
    order: list[int | None] = []
    for packet, _ in decoding.frames():
        source.decoded_frames += 1
        order.append(packet)
    return order, decoding.damaged


def _mark(wanted: list[int], order: Sequence[int | None]) -> bytearray:
    marks = bytearray(len(order))
    for number in wanted:
        marks[number] = True
    return marks


def _check_memory(
    windows: Sequence[PlannedWindow], frames: int, geometry: Geometry, sampling: Sampling, limits: WindowLimits
) -> None:
    count = count_shared(windows, frames)
    megabytes = count * geometry.crop**2 * 3 * sampling.crops / 2**20
    if megabytes > limits.max_megabytes:
        raise InvalidRequest(
            f"the windows that overlap at one moment have {count} different frames, {megabytes:.0f} MiB, but"
            f" {limits.max_megabytes} MiB are allowed; choose a larger step_seconds, or a shorter window_seconds"
        )
