"""The small part of PyNvVideoCodec 2.2.4 that is used, without a GPU: FFmpeg decodes Annex B in its place.

It keeps to what the real one does (its sources were read, its calls ran on an H100) and is stricter where the real one
gives wrong pictures: streams that a decoder was not set up for, memory that is read too late, packets that are no
Annex B.

`faults` makes the next calls go wrong, by name: a test sets them, or the environment (FAKE_NVDEC="die").
"""

from __future__ import annotations

import ctypes
import enum
import os
import threading
from typing import ClassVar

import av
import numpy as np

__version__ = "2.2.4"

faults: set[str] = set(filter(None, os.environ.get("FAKE_NVDEC", "").split(",")))
# Calls of CreateDecoder and setReconfigParams, and packets, as they came.
made: list[dict[str, object]] = []
resized: list[tuple[int, int]] = []
packets: list[bytes] = []


class cudaVideoCodec(enum.IntEnum):
    H264 = 4
    HEVC = 8


class cudaVideoChromaFormat:
    pass


setattr(cudaVideoChromaFormat, "420", 1)


class PyNvVCException(Exception):
    pass


class PacketData:
    bsl = 0
    bsl_data = 0
    pts = 0


def GetDecoderCaps(*, gpuid: int, codec: cudaVideoCodec, chromaformat: int, bitdepth: int) -> dict[str, int]:
    return {
        "supported": int("no decoder" not in faults and not (codec == cudaVideoCodec.H264 and bitdepth > 8)),
        "width_min": 48,
        "height_min": 16,
        "width_max": 4096,
        "height_max": 4096,
        "mb_num_max": 65536,
        "num_decoder_engines": 7,
    }


class DecodedFrame:
    def __init__(self, surface: np.ndarray, timestamp: int) -> None:
        self._surface, self.timestamp = surface, timestamp

    @property
    def shape(self) -> tuple[int, ...]:
        return self._surface.shape

    def framesize(self) -> int:
        return self._surface.nbytes

    def getPTS(self) -> int:
        return self.timestamp

    def GetPtrToPlane(self, plane: int) -> int:
        assert plane == 0
        return self._surface.ctypes.data


class PyNvDecoder:
    _codecs: ClassVar[dict[cudaVideoCodec, str]] = {cudaVideoCodec.H264: "h264", cudaVideoCodec.HEVC: "hevc"}

    def __init__(self, codec: cudaVideoCodec, side: tuple[int, int]) -> None:
        self._codec, self._side = codec, side
        self._size: tuple[int, int] | None = None
        self._bits = 0
        self._next_size: tuple[int, int] | None = None
        self._lent: list[np.ndarray] = []
        self._seek = 0
        self._busy = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        # As deep as a stream may ask for: a GPU never gives frames early.
        self._context = av.CodecContext.create(self._codecs[self._codec], "r")
        self._context.options = {"strict": "1"}
        self._context.thread_count = 1

    def SetSeekPTS(self, pts: int) -> None:
        self._seek = pts

    def setReconfigParams(self, width: int, height: int) -> int:
        if width > self._side[0] or height > self._side[1]:
            raise RuntimeError("Resize dimensions must be lower than max width and height")
        resized.append((width, height))
        self._next_size = width, height
        return 1

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:
        assert self._busy.acquire(blocking=False), "one decoder, two threads"
        try:
            return self._decode(packet)
        finally:
            self._busy.release()

    def _decode(self, packet: PacketData) -> list[DecodedFrame]:
        if "die" in faults:
            os._exit(1)
        if "hang" in faults:
            threading.Event().wait()
        if "fail" in faults:
            raise PyNvVCException("HandlePictureDecode: CUDA_ERROR_UNKNOWN")
        for surface in self._lent:
            surface[...] = 77  # What was given out is written anew.
        self._lent = []
        data = ctypes.string_at(packet.bsl_data, packet.bsl) if packet.bsl else b""
        packets.append(data)
        if data:
            assert data.startswith((b"\0\0\0\x01", b"\0\0\x01")), "no Annex B"
            compressed = av.Packet(data)
            compressed.pts = compressed.dts = packet.pts
            frames = self._context.decode(compressed)
        else:
            frames = self._context.decode(None)
            self._begin()
        if "lose a frame" in faults:
            frames = frames[1:]
        if "print" in faults:
            ctypes.CDLL(None).printf(b"Decode Error occurred for picture %d\n", 3)
        return [self._give(frame) for frame in frames]

    def _give(self, frame: av.VideoFrame) -> DecodedFrame:
        size, bits = (frame.width, frame.height), frame.format.components[0].bits
        if self._size is None:
            self._size, self._bits = size, bits
        elif size != self._size:
            assert self._next_size == size, f"set up for {self._next_size or self._size}, but {size} comes"
            self._size = size
        assert bits == self._bits, "a decoder keeps its bit depth"
        wide = bits > 8
        height, width = frame.height, frame.width
        surface = np.empty((height + (height + 1) // 2, (width + 1) // 2 * 2), np.uint16 if wide else np.uint8)
        if not self._seek or frame.pts >= self._seek:
            luma, blue, red = (
                np.frombuffer(memoryview(plane), surface.dtype).reshape(plane.height, -1)[:, : plane.width]
                for plane in frame.planes
            )
            surface[:height, :width] = luma
            surface[height:, 0::2] = blue
            surface[height:, 1::2] = red
            if wide:
                surface <<= 6
            if "wrong pixels" in faults:
                surface[0, 0] ^= 128
        self._lent.append(surface)
        return DecodedFrame(surface, frame.pts)


def CreateDecoder(
    *,
    gpuid: int,
    codec: cudaVideoCodec,
    cudacontext: int,
    cudastream: int,
    usedevicememory: bool,
    maxwidth: int = 0,
    maxheight: int = 0,
) -> PyNvDecoder:
    if "out of memory" in faults:
        raise PyNvVCException("cuvidCreateDecoder returned error 2")
    made.append({"codec": codec, "side": maxwidth})
    return PyNvDecoder(codec, (maxwidth, maxheight))
