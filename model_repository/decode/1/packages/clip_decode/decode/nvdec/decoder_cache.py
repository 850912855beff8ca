"""A cache of NVDEC decoders: creating one takes longer than decoding a video.

What PyNvVideoCodec 2.2.4 does, and what follows from it:
* A decoder takes another stream as it is where the pictures are alike and no more of them have to be kept. Where only
  the displayed size differs, it would crop pictures wrongly (532 lines for 530); where more have to be kept, it would
  have too few surfaces. Such a stream gets another decoder.
* `setReconfigParams` makes it take a stream of another coded size, up to the size that it was created for. Without that
  call it would scale the pictures to the previous size.
* A decoder cannot shrink, so the size that it was created for counts against the memory bound.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.sequence_parameter_set import SequenceParameters
from clip_decode.decode.nvdec.surface import Samples, surface_shape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

# Decoders are created for squares of these sides: both orientations fit.
_SIDES = (640, 1280, 1920, 4096, 8192)
# Surfaces beyond those that a stream keeps: four that PyNvVideoCodec adds, two that are mapped, and frames that it
# copied.
_EXTRA_SURFACES = 14
# MiB of the GPU's memory left to the networks: PyNvVideoCodec ends the process where there is none.
_SPARED_MEGABYTES = 512


class CachedDecoder:
    """One decoder of PyNvVideoCodec, for one stream at a time.

    Attributes:
        sequence: of the stream that it is set up for.
        side: of the square that it was created for, in pixels.
    """

    def __init__(self, nvc: Any, cuda: Cuda, sequence: SequenceParameters, side: int) -> None:
        """Create it. Frames come to the GPU's memory; `cuda` copies those that are wanted."""
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
        self._samples = _allocate_samples(sequence)

    @property
    def megabytes(self) -> int:
        """Upper bound of its GPU memory in MiB."""
        return estimate_megabytes(self.sequence, self.side)

    def can_reconfigure(self, sequence: SequenceParameters) -> bool:
        """Whether it can be set up for a stream of another coded size."""
        mine = self.sequence
        return (
            (mine.codec, mine.bits) == (sequence.codec, sequence.bits)
            and max(sequence.coded_width, sequence.coded_height) <= self.side
            and (mine.coded_width, mine.coded_height) != (sequence.coded_width, sequence.coded_height)
        )

    def reconfigure(self, sequence: SequenceParameters) -> None:
        """Set it up for a stream of another coded size."""
        self._decoder.setReconfigParams(sequence.width, sequence.height)
        self.sequence = sequence
        self._samples = _allocate_samples(sequence)

    def send(self, data: bytes, timestamp: int, *, seek: int) -> Iterator[tuple[int, Any]]:
        """Send a packet, and return the frames that come out with their timestamps; no data flushes the decoder.

        A frame is valid until the next call. Frames with timestamps below `seek` come without pixels.
        """
        self._decoder.SetSeekPTS(seek)
        packet = self._nvc.PacketData()
        held = np.frombuffer(data, np.uint8)
        packet.bsl, packet.bsl_data = len(data), held.ctypes.data if data else 0
        packet.pts = timestamp
        for frame in self._decoder.Decode(packet):
            yield int(frame.timestamp), frame

    def copy(self, frame: Any) -> Samples:
        """Copy the samples of a frame from the GPU, NV12 or P010; valid until the next call.

        Raises:
            DependenciesUnknown: the frame has another size than the stream states.
        """
        if frame.framesize() != self._samples.nbytes:
            raise DependenciesUnknown(f"a frame of {frame.framesize()} bytes, but {self._samples.nbytes} were expected")
        self._cuda.copy(self._samples, int(frame.GetPtrToPlane(0)), self._stream)
        return self._samples

    def close(self) -> None:
        """Release what it holds of the GPU."""
        del self._decoder
        self._cuda.destroy_stream(self._stream)


def _allocate_samples(sequence: SequenceParameters) -> Samples:
    shape = surface_shape(sequence.width, sequence.height)
    return np.empty(shape, np.uint8 if sequence.bits == 8 else np.uint16)


def estimate_megabytes(sequence: SequenceParameters, side: int) -> int:
    """Upper bound of the GPU memory, in MiB, of a decoder that is created for squares of `side` pixels."""
    sample = 1.5 * (1 if sequence.bits == 8 else 2)
    return -int(-(side * side * sample * (sequence.kept_frames + _EXTRA_SURFACES)) // 2**20)


class DecoderCache:
    """The decoders of one GPU, each used by one stream at a time. Thread-safe.

    Attributes:
        created, reconfigured: how often a decoder was created, and set up for another size.
    """

    def __init__(self, nvc: Any, cuda: Cuda, *, max_decoders: int, megabytes: int) -> None:
        """Keep up to `max_decoders`, which together take up to `megabytes` MiB of the GPU's memory."""
        self._nvc, self._cuda, self._max_decoders, self._max_megabytes = nvc, cuda, max_decoders, megabytes
        self._idle: list[CachedDecoder] = []  # Most recently used last.
        self._megabytes = self._count = 0
        self._changed = threading.Condition()
        self.created = self.reconfigured = 0

    @property
    def megabytes(self) -> int:
        """Upper bound of the GPU memory, in MiB, of all decoders now."""
        return self._megabytes

    @contextmanager
    def acquire(self, sequence: SequenceParameters) -> Iterator[CachedDecoder]:
        """A decoder ready for a stream; waits while the others take all the memory. A decoder that fails is discarded.

        Raises:
            DependenciesUnknown: no decoder can be created for the stream.
        """
        decoder = self._take(sequence)
        try:
            yield decoder
        except BaseException:
            self._discard(decoder)
            raise
        with self._changed:
            self._idle.append(decoder)
            self._changed.notify()

    def close(self) -> None:
        """Discard the idle decoders."""
        with self._changed:
            idle, self._idle = self._idle, []
        for decoder in idle:
            self._discard(decoder)

    def _take(self, sequence: SequenceParameters) -> CachedDecoder:
        side = next((s for s in _SIDES if s >= max(sequence.coded_width, sequence.coded_height)), 0)
        needed = estimate_megabytes(sequence, side)
        if not side or needed > self._max_megabytes:
            raise DependenciesUnknown(f"its decoder takes {needed} MiB, but {self._max_megabytes} are allowed")
        while True:
            spare: CachedDecoder | None = None
            with self._changed:
                decoder = self._find_idle(sequence)
                if decoder is not None:
                    self._idle.remove(decoder)
                    break
                if self._count < self._max_decoders and self._megabytes + needed <= self._max_megabytes:
                    self._count += 1
                    self._megabytes += needed
                    break
                if self._idle:
                    spare = self._idle.pop(0)
                else:
                    self._changed.wait()
            if spare is not None:
                self._discard(spare)
        if decoder is None:
            return self._create(sequence, side, needed)
        if not decoder.sequence.covers(sequence):
            self._reconfigure(decoder, sequence)
        return decoder

    def _find_idle(self, sequence: SequenceParameters) -> CachedDecoder | None:
        for decoder in reversed(self._idle):
            if decoder.sequence.covers(sequence):
                return decoder
        # While half of the memory is free, keep a decoder as it is: a stream may come that it covers.
        if self._count < self._max_decoders and self._megabytes < self._max_megabytes // 2:
            return None
        return next((decoder for decoder in self._idle if decoder.can_reconfigure(sequence)), None)

    def _create(self, sequence: SequenceParameters, side: int, needed: int) -> CachedDecoder:
        try:
            if self._cuda.memory()[0] < (needed + _SPARED_MEGABYTES) * 2**20:
                raise MemoryError(f"the GPU has no {needed} MiB of memory to spare")
            decoder = CachedDecoder(self._nvc, self._cuda, sequence, side)
        except Exception as error:
            self._account(-1, -needed)
            raise DependenciesUnknown(f"no decoder can be created: {error}") from error
        self.created += 1
        return decoder

    def _reconfigure(self, decoder: CachedDecoder, sequence: SequenceParameters) -> None:
        before = decoder.megabytes
        try:
            decoder.reconfigure(sequence)
        except Exception as error:
            self._discard(decoder)
            raise DependenciesUnknown(f"a decoder cannot be set up for another size: {error}") from error
        self._account(0, decoder.megabytes - before)
        self.reconfigured += 1

    def _discard(self, decoder: CachedDecoder) -> None:
        decoder.close()
        self._account(-1, -decoder.megabytes)

    def _account(self, decoders: int, megabytes: int) -> None:
        with self._changed:
            self._count += decoders
            self._megabytes += megabytes
            self._changed.notify_all()
