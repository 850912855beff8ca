"""Videos made for tests: every frame different, its number readable from its pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """How to make one video.

    Attributes:
        codec: name of FFmpeg's encoder.
        container: name of FFmpeg's muxer.
        frames: how many.
        width, height: in pixels.
        rate: frames a second.
        options: of the encoder.
        muxer: options of the muxer.
        pixel_format: of the encoder.
        stamps: of the frames, in units of 1 / `clock`; None is one after the other at `rate`.
        clock: units a second for `stamps`.
        paint: frame number -> RGB; None is the moving texture.
        gop: frames between keyframes.
        rotation: counterclockwise degrees of the display matrix.
        flips: horizontal, vertical mirror of the display matrix.
        tags: attributes to set on the codec context.
    """

    codec: str = "libx264"
    container: str = "mp4"
    frames: int = 48
    width: int = 96
    height: int = 64
    rate: Fraction = Fraction(30)
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    stamps: Sequence[int] | None = None
    clock: int = 1000
    paint: Callable[[int], Pixels] | None = None
    gop: int | None = None
    rotation: int = 0
    flips: tuple[bool, bool] = (False, False)
    tags: dict[str, object] = field(default_factory=dict)

    def make(self) -> bytes:
        """The bytes of the file."""
        file = io.BytesIO()
        with av.open(file, "w", format=self.container, options=self.muxer) as output:
            stream = output.add_stream(self.codec, rate=self.rate)
            stream.width, stream.height = self.width, self.height
            stream.pix_fmt = self.pixel_format
            context = stream.codec_context
            context.options = self.options
            context.thread_count = 1
            if self.gop is not None:
                context.gop_size = self.gop
            if self.stamps is not None:
                context.time_base = Fraction(1, self.clock)
            for name, value in self.tags.items():
                setattr(context, name, value)
            if self.rotation or any(self.flips):
                stream.set_display_rotation(self.rotation, *self.flips)
            for number in range(self.frames):
                output.mux(stream.encode(self._frame(number)))
            output.mux(stream.encode(None))
        # For root, SVT-AV1 leaves the thread that called it under SCHED_FIFO, ahead of every other program there is.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return file.getvalue()

    def _frame(self, number: int) -> VideoFrame:
        paint = self.paint or (lambda n: paint_texture(n, self.width, self.height))
        frame = VideoFrame.from_ndarray(paint(number), format="rgb24")
        if self.stamps is not None:
            frame.pts, frame.time_base = self.stamps[number], Fraction(1, self.clock)
        else:
            frame.pts, frame.time_base = number, 1 / self.rate
        return frame.reformat(format=self.pixel_format, threads=1)  # more take longer to start than a frame takes


def repeat(data: bytes, times: int, rate: Fraction = Fraction(30)) -> bytes:
    """A mp4 file with the same packets again and again, at this frame rate."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        copy: VideoStream | None = None
        frames = 0
        for _ in range(times):
            with av.open(io.BytesIO(data)) as container:
                stream = container.streams.video[0]
                copy = copy or output.add_stream_from_template(stream)
                shift = int(frames / rate / stream.time_base)
                for packet in container.demux(stream):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = copy
                        output.mux(packet)
                        frames += 1
    return file.getvalue()


def remux(
    data: bytes, container: str, *, shift: int = 0, options: dict[str, str] | None = None, lost: int | None = None
) -> bytes:
    """Copy packets into another file, timestamps moved by `shift` frames. lost: the number of one to leave out."""
    target = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(target, "w", format=container, options=options or {}) as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        ticks = int(shift / (stream.average_rate or 30) / (stream.time_base or 1))
        for number, packet in enumerate(source.demux(stream)):
            if packet.size and number != lost:
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = copy
                output.mux(packet)
    return target.getvalue()


def join(parts: Sequence[bytes], container: str, first_packet: int = 0) -> bytes:
    """The packets of several files, from one packet on, in one stream that is described as that of the first file.

    They must be in display order, at 30 frames a second.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        copy: VideoStream | None = None
        packets: list[Packet[VideoStream]] = []
        for data in parts:
            with av.open(io.BytesIO(data)) as part:
                stream = part.streams.video[0]
                copy = copy or output.add_stream_from_template(stream, opaque=True)
                packets += [packet for packet in part.demux(stream) if packet.size]
        assert copy is not None
        for number, packet in enumerate(packets[first_packet:]):
            packet.stream, packet.time_base = copy, Fraction(1, 90_000)
            packet.pts, packet.dts, packet.duration = 3000 * number, 3000 * number, 3000
            output.mux(packet)
    return file.getvalue()


def paint_texture(number: int, width: int, height: int) -> Pixels:
    """Noise that drifts over a gradient, so that a wrong reference shows in many pixels."""
    noise = np.random.default_rng(7).integers(0, 90, (height, width, 3), dtype=np.uint8)
    drifted = np.roll(noise, (number * 2, number * 3), axis=(0, 1))
    row = np.arange(width, dtype=np.uint16)[None, :, None]
    ramp = ((row * 2 + number * 5) % 120).astype(np.uint8)
    return drifted + ramp


def paint_grey(number: int, width: int = 96, height: int = 64) -> Pixels:
    """One flat level that says which frame it is, for up to 75 frames."""
    return np.full((height, width, 3), 16 + 3 * number, dtype=np.uint8)


def read_grey(square: Pixels) -> int:
    """The frame number that a flat square tells."""
    return round((float(square.mean()) - 16) / 3)


@dataclass(frozen=True)
class Plain:
    """A plain decode of a whole file.

    Attributes:
        frames: RGB [H, W, 3], upright.
        stamps: timestamps, None where there is none.
        keys: whether FFmpeg calls a frame a key frame.
    """

    frames: list[Pixels]
    stamps: list[float | None]
    keys: list[bool]


def decode_plainly(data: bytes) -> Plain:
    """Decode everything with PyAV, packet by packet, stepping over packets that fail."""
    frames: list[Pixels] = []
    stamps: list[float | None] = []
    keys: list[bool] = []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1  # libdav1d handles damage otherwise with more.
        for packet in container.demux(stream):
            if packet.size == 0 and packet.dts is not None:
                continue
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                rgb = frame.to_ndarray(format="rgb24", threads=1)
                frames.append(np.rot90(rgb, round(frame.rotation / 90)))
                stamps.append(frame.time)
                keys.append(frame.key_frame)
    return Plain(frames, stamps, keys)


def cut_centre(frame: Pixels, side: int) -> Pixels:
    """The centre square, offsets rounded up, as PyTorchVideo cuts it."""
    top = -((side - frame.shape[0]) // 2)
    left = -((side - frame.shape[1]) // 2)
    return frame[top : top + side, left : left + side]
