"""NVDEC's decoders, kept: to set one up takes longer than to decode a video.

What PyNvVideoCodec 2.2.4 does, and what is done about it:
* A decoder takes another stream as it is where the pictures are alike and no more of them are to be kept. Where only
  the size that is shown differs, it would cut pictures wrongly (532 lines for 530); where more are to be kept, it would
  have too few surfaces. Such streams get another decoder.
* `setReconfigParams` makes it take a stream of another coded size, up to the size it was made for. Without that call it
  would scale the pictures to the size before.
* A decoder cannot be shrunk, so what counts against the bound is the size it was made for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.sequence_parameter_set import Sequence
from clip_decode.decode.nvdec.surface import Samples, surface_shape
from clip_decode.dependencies.packet_dependencies import Unproven

# Sides of the squares that decoders are made for: pictures up to it, either way up.
_SIDES = (640, 1280, 1920, 4096, 8192)
# Surfaces beyond those a stream keeps: four that PyNvVideoCodec adds, two that are mapped, and frames it has copied.
_EXTRA_SURFACES = 14
# Of the GPU's memory, left to the networks beside it: PyNvVideoCodec ends the process where there is none.
_SPARED_MEGABYTES = 512


class Engine:
    """One decoder of PyNvVideoCodec, for one stream at a time."""

    def __init__(self, nvc: Any, cuda: Cuda, sequence: Sequence, side: int) -> None:
        """Frames come to the GPU's memory; `cuda` copies those that are read."""
        self._nvc, self._cuda, self.side = nvc, cuda, side
        self.sequence = sequence
        self._stream = cuda.create_stream()
        codec = nvc.cudaVideoCodec.H264 if sequence.codec == "h264" else nvc.cudaVideoCodec.HEVC
        self._decoder = nvc.CreateDecoder(
            gpuid=0,
            codec=codec,
            cudacontext=cuda.context,
            cudastream=self._stream,
            usedevicememory=True,
            maxwidth=side,
            maxheight=side,
        )
        self._room = _make_room(sequence)

    @property
    def megabytes(self) -> int:
        """An upper bound of the GPU's memory that it takes."""
        return estimate_megabytes(self.sequence, self.side)

    def can_resize(self, sequence: Sequence) -> bool:
        """Whether it can be set up for a stream of another coded size."""
        mine = self.sequence
        return (
            (mine.codec, mine.bits) == (sequence.codec, sequence.bits)
            and max(sequence.coded_width, sequence.coded_height) <= self.side
            and (mine.coded_width, mine.coded_height) != (sequence.coded_width, sequence.coded_height)
        )

    def resize(self, sequence: Sequence) -> None:
        """Set it up for such a stream."""
        self._decoder.setReconfigParams(sequence.width, sequence.height)
        self.sequence = sequence
        self._room = _make_room(sequence)

    def feed(self, data: bytes, stamp: int, *, seek: int) -> Iterator[tuple[int, Any]]:
        """Frames that come out when a packet goes in, with their stamps; no data asks for those that wait.

        A frame is valid until the next call. Those with stamps below `seek` come without pixels.
        """
        self._decoder.SetSeekPTS(seek)
        packet = self._nvc.PacketData()
        held = np.frombuffer(data, np.uint8)
        packet.bsl, packet.bsl_data = len(data), held.ctypes.data if data else 0
        packet.pts = stamp
        for frame in self._decoder.Decode(packet):
            yield int(frame.timestamp), frame

    def read(self, frame: Any) -> Samples:
        """The samples of a frame, NV12 or P010; valid until the next call.

        Raises:
            Unproven: it has not the size that the stream says.
        """
        if frame.framesize() != self._room.nbytes:
            raise Unproven(f"a frame of {frame.framesize()} bytes, but {self._room.nbytes} were expected")
        self._cuda.copy(self._room, int(frame.GetPtrToPlane(0)), self._stream)
        return self._room

    def close(self) -> None:
        """Give back what it has of the GPU."""
        del self._decoder
        self._cuda.destroy_stream(self._stream)


def _make_room(sequence: Sequence) -> Samples:
    shape = surface_shape(sequence.width, sequence.height)
    return np.empty(shape, np.uint8 if sequence.bits == 8 else np.uint16)


def estimate_megabytes(sequence: Sequence, side: int) -> int:
    """Upper bound of the GPU's memory, in MiB, that a decoder made for squares of `side` pixels takes."""
    sample = 1.5 * (1 if sequence.bits == 8 else 2)
    return -int(-(side * side * sample * (sequence.kept + _EXTRA_SURFACES)) // 2**20)


class Engines:
    """The decoders of one GPU, each lent to one stream at a time; every method may be called from any thread.

    Attributes:
        made, resized: how many were made, and how often one was set up for another size.
    """

    def __init__(self, nvc: Any, cuda: Cuda, *, most: int, megabytes: int) -> None:
        """At most `most` decoders, which together take no more than `megabytes` of the GPU's memory."""
        self._nvc, self._cuda, self._most, self._megabytes = nvc, cuda, most, megabytes
        self._idle: list[Engine] = []  # The one used last stands last.
        self._taken = self._count = 0
        self._changed = threading.Condition()
        self.made = self.resized = 0

    @property
    def megabytes(self) -> int:
        """What the decoders that there are take of the GPU's memory, in MiB; an upper bound."""
        return self._taken

    @contextmanager
    def lend(self, sequence: Sequence) -> Iterator[Engine]:
        """A decoder ready for a stream; waits while the others take all there is. One that fails is thrown away.

        Raises:
            Unproven: no decoder can be made for it.
        """
        engine = self._fetch(sequence)
        try:
            yield engine
        except BaseException:
            self._throw_away(engine)
            raise
        with self._changed:
            self._idle.append(engine)
            self._changed.notify()

    def close(self) -> None:
        """Throw away those that are not lent."""
        with self._changed:
            idle, self._idle = self._idle, []
        for engine in idle:
            self._throw_away(engine)

    def _fetch(self, sequence: Sequence) -> Engine:
        side = next((s for s in _SIDES if s >= max(sequence.coded_width, sequence.coded_height)), 0)
        needed = estimate_megabytes(sequence, side)
        if not side or needed > self._megabytes:
            raise Unproven(f"a decoder for it takes {needed} MiB, but {self._megabytes} are allowed")
        while True:
            spare: Engine | None = None
            with self._changed:
                engine = self._find(sequence)
                if engine is not None:
                    self._idle.remove(engine)
                    break
                if self._count < self._most and self._taken + needed <= self._megabytes:
                    self._count += 1
                    self._taken += needed
                    break
                if self._idle:
                    spare = self._idle.pop(0)
                else:
                    self._changed.wait()
            if spare is not None:
                self._throw_away(spare)
        if engine is None:
            return self._make(sequence, side, needed)
        if not engine.sequence.covers(sequence):
            self._resize(engine, sequence)
        return engine

    def _find(self, sequence: Sequence) -> Engine | None:
        for engine in reversed(self._idle):
            if engine.sequence.covers(sequence):
                return engine
        # Another stream may come for a decoder as it is: while half of the room is free, it is left so.
        if self._count < self._most and self._taken < self._megabytes // 2:
            return None
        return next((engine for engine in self._idle if engine.can_resize(sequence)), None)

    def _make(self, sequence: Sequence, side: int, needed: int) -> Engine:
        try:
            if self._cuda.memory()[0] < (needed + _SPARED_MEGABYTES) * 2**20:
                raise MemoryError(f"the GPU has no {needed} MiB of memory to spare")
            engine = Engine(self._nvc, self._cuda, sequence, side)
        except Exception as error:
            self._account(-1, -needed)
            raise Unproven(f"no decoder can be made: {error}") from error
        self.made += 1
        return engine

    def _resize(self, engine: Engine, sequence: Sequence) -> None:
        before = engine.megabytes
        try:
            engine.resize(sequence)
        except Exception as error:
            self._throw_away(engine)
            raise Unproven(f"a decoder can not be set up anew: {error}") from error
        self._account(0, engine.megabytes - before)
        self.resized += 1

    def _throw_away(self, engine: Engine) -> None:
        engine.close()
        self._account(-1, -engine.megabytes)

    def _account(self, decoders: int, megabytes: int) -> None:
        with self._changed:
            self._count += decoders
            self._taken += megabytes
            self._changed.notify_all()
