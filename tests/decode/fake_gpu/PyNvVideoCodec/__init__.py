"""The small part of PyNvVideoCodec 2.2.4 that is used, without a GPU: FFmpeg decodes Annex B and AV1 in its place.

It keeps to what the real one does (its sources were read, its calls ran on an H100) and is stricter where the real one
gives wrong pictures: streams that a decoder was not set up for, memory that is read too late, packets that are no
Annex B.

`faults` makes calls go wrong, by name, for every codec or one ("die", "die hevc"): a test sets them, or the environment
(FAKE_NVDEC="die"). The first `good_calls` calls of Decode go well all the same. Two of them are no faults: "beside"
decodes in a thread of its own, so that it takes no time of the caller, as hardware does; "slow" takes much.
"""

from __future__ import annotations

import ctypes
import enum
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import av
import numpy as np

from clip_decode.decode.nvdec import cuda

__version__ = "2.2.4"

faults: set[str] = set(filter(None, os.environ.get("FAKE_NVDEC", "").split(",")))
good_calls = 0
# Calls of CreateDecoder and setReconfigParams, and packets, as they came.
made: list[dict[str, object]] = []
resized: list[tuple[int, int]] = []
packets: list[bytes] = []


class cudaVideoCodec(enum.IntEnum):
    H264 = 4
    HEVC = 8
    AV1 = 11


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
    name = codec.name.lower()
    if f"no answer {name}" in faults:
        raise PyNvVCException("GetDecoderCaps: CUDA_ERROR_NOT_SUPPORTED")
    is_missing = not faults.isdisjoint({"no decoder", f"no decoder {name}"})
    return {
        "supported": int(not is_missing and not (codec == cudaVideoCodec.H264 and bitdepth > 8)),
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
    _codecs: ClassVar[dict[cudaVideoCodec, str]] = {
        cudaVideoCodec.H264: "h264",
        cudaVideoCodec.HEVC: "hevc",
        cudaVideoCodec.AV1: "libdav1d",
    }

    def __init__(self, codec: cudaVideoCodec, side: tuple[int, int]) -> None:
        self._codec, self._side = codec, side
        self._size: tuple[int, int] | None = None
        self._coded_size: tuple[int, int] | None = None
        self._bits = 0
        self._next_size: tuple[int, int] | None = None
        self._lent: list[np.ndarray] = []
        self._seek = 0
        self._held: dict[int, int] = {}  # Timestamps of pictures that have not come out: as sent, and as they are.
        self._checked_pictures, self._sorts = 16, False
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
        self._begin()  # The real one flushes.
        resized.append((width, height))
        self._next_size = width, height
        return 1

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:
        assert self._busy.acquire(blocking=False), "one decoder, two threads"
        try:
            if not self._has("beside"):
                return self._decode(packet)
            with ThreadPoolExecutor(1) as hardware:
                return hardware.submit(self._decode, packet).result()
        finally:
            self._busy.release()

    def _has(self, fault: str) -> bool:
        return good_calls < 0 and not faults.isdisjoint({fault, f"{fault} {self._codec.name.lower()}"})

    def _decode(self, packet: PacketData) -> list[DecodedFrame]:
        global good_calls
        good_calls -= 1
        if self._has("die"):
            os._exit(1)
        if self._has("hang"):
            threading.Event().wait()
        if self._has("slow"):
            end = time.thread_time() + 0.003
            while time.thread_time() < end:
                pass
        if self._has("lose the gpu"):
            os.environ["FAKE_GPU_LOST"] = "1"
        if self._has("lose the gpu silently"):  # The next call of the driver says so.
            os.environ["FAKE_GPU_LOST"] = "1"
        if self._has("fail") or self._has("lose the gpu"):
            raise PyNvVCException("HandlePictureDecode: CUDA_ERROR_UNKNOWN")
        for surface in self._lent:
            surface[...] = 77  # What was given out is written anew.
        self._lent = []
        data = ctypes.string_at(packet.bsl_data, packet.bsl) if packet.bsl else b""
        packets.append(data)
        if data:
            if self._codec == cudaVideoCodec.AV1:
                assert data[0] & 0x82 == 2, "no OBU with a size"
            else:
                assert data.startswith((b"\0\0\0\x01", b"\0\0\x01")), "no Annex B"
            compressed = av.Packet(data)
            compressed.pts = compressed.dts = packet.pts
            self._held[packet.pts] = packet.pts
            frames = self._context.decode(compressed)
        else:
            frames = self._context.decode(None)
        coded_size = self._context.coded_width, self._context.coded_height
        if self._codec == cudaVideoCodec.AV1:  # In whole blocks, as the others; FFmpeg's has the displayed size.
            coded_size = tuple(-(-length // 8) * 8 for length in coded_size)
        if not data:
            self._begin()
        if self._has("lose a frame"):
            frames = frames[1:]
        if self._has("out of order"):
            frames[-2:] = frames[:-3:-1]
        for frame in frames:
            frame.pts = self._sort_timestamp(frame.pts)
        if not data:
            self._held.clear()
        if self._has("print"):
            ctypes.CDLL(None).printf(b"Decode Error occurred for picture %d\n", 3)
        return [self._give(frame, coded_size) for frame in frames]

    def _sort_timestamp(self, sent: int) -> int:
        timestamp = self._held.pop(sent)
        if self._sorts or self._checked_pictures:
            earliest = min(self._held, key=self._held.__getitem__, default=sent)
            if earliest != sent and self._held[earliest] < timestamp:
                self._held[earliest], timestamp = timestamp, self._held[earliest]
                self._sorts = True
            self._checked_pictures = max(self._checked_pictures - 1, 0)
        return timestamp

    def _give(self, frame: av.VideoFrame, coded_size: tuple[int, int]) -> DecodedFrame:
        size, bits = (frame.width, frame.height), frame.format.components[0].bits
        if self._size is None:
            self._size, self._bits = size, bits
        elif size != self._size:
            # The real one then crops: it ignores setReconfigParams.
            assert coded_size != self._coded_size, f"set up for {self._size}, but {size} comes in the same coded size"
            assert self._next_size == size, f"set up for {self._next_size or self._size}, but {size} comes"
            self._size = size
        self._coded_size = coded_size
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
            if self._has("wrong pixels"):
                surface[0, 0] ^= 128
        else:  # The real one leaves the context that it has pushed.
            ctypes.CDLL(cuda.LIBRARY).cuCtxPushCurrent_v2(ctypes.c_void_p(0xC0))
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
