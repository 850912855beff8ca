"""A cache of NVDEC decoders: creating one takes longer than decoding a video.

Creating takes some 250 ms, setting up for another stream 2 ms (benchmarks/results/nvdec.md). So a decoder is created
only where none of its kind (codec, bits of a sample) is idle.

What PyNvVideoCodec 2.2.4 does, and what follows from it:
* The decoder itself is created when the first picture comes. So a sample picture creates it ahead of the first video.
* A decoder takes another stream as it is where the pictures are alike and no more of them have to be kept.
* `setReconfigParams` makes it take a stream of another coded size, up to the size that it was created for. Without that
  call it would scale the pictures to the previous size.
* It does nothing where the coded size stays. Pictures would be cropped wrongly where only the displayed size differs
  (532 lines for 530), and surfaces would be missing where more pictures have to be kept. Such a stream follows a sample
  picture of another size.
* A decoder cannot shrink, so the size that it was created for, and the most pictures that it has kept, count against
  the memory bound.
* `setReconfigParams` frees the copied frames and leaves their CUDA events behind. So a decoder is not set up for ever.
* Its parser (as published in NVIDIA's vk_video_samples, `display_picture`) sorts the timestamps of the first 16
  pictures that it shows, and for ever those of all others if these came out of order. That would hide a wrong order.
  So a new decoder shows one picture 16 times first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.sample_pictures import SamplePicture, read_sample
from clip_decode.decode.nvdec.sequence_parameter_set import SequenceParameters
from clip_decode.decode.nvdec.surface import Samples, surface_shape
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown

# Decoders are created for squares of these sides: both orientations fit. The first holds 1080p, so that one decoder
# takes all common sizes.
SIDES = (1920, 4096, 8192)
# Surfaces beyond those that a stream keeps: four that PyNvVideoCodec adds, two that are mapped, two to spare. It copies
# as many frames as come out at once: when a stream ends, all that it keeps.
_EXTRA_SURFACES = 8
_LEAST_COPIES = 6
# MiB of the GPU's memory left to the networks: PyNvVideoCodec ends the process where there is none.
_SPARED_MEGABYTES = 512
# Pictures whose timestamps a new parser may sort.
_SORTED_PICTURES = 16
# How often a decoder is set up for another size. A new one takes 250 ms.
MAX_RESIZES = 1000


class CachedDecoder:
    """One decoder of PyNvVideoCodec, for one stream at a time.

    Attributes:
        sequence: of the stream that it is set up for.
        side: of the square that it was created for, in pixels.
        megabytes: upper bound of its GPU memory in MiB.
    """

    def __init__(self, nvc: Any, cuda: Cuda, sequence: SequenceParameters, side: int) -> None:
        """Create it. Frames come to the GPU's memory; `cuda` copies those that are wanted."""
        self._nvc, self._cuda, self.side = nvc, cuda, side
        self.sequence = sequence
        self.megabytes = estimate_megabytes(sequence, side)
        self._resizes = 0
        self._sorted_pictures = _SORTED_PICTURES
        self._samples = _allocate_samples(sequence)
        self._stream = cuda.create_stream()
        try:
            self._decoder = nvc.CreateDecoder(
                gpuid=0,
                codec=getattr(nvc.cudaVideoCodec, sequence.codec.upper()),
                cudacontext=cuda.context,
                cudastream=self._stream,
                usedevicememory=True,
                maxwidth=side,
                maxheight=side,
            )
        except BaseException:
            cuda.destroy_stream(self._stream)
            raise

    def can_reconfigure(self, sequence: SequenceParameters) -> bool:
        """Whether it can be set up for a stream."""
        mine = self.sequence
        return (
            self._resizes < MAX_RESIZES
            and (mine.codec, mine.bits) == (sequence.codec, sequence.bits)
            and max(sequence.coded_width, sequence.coded_height) <= self.side
            and (mine.driver_size != sequence.driver_size or self._sample.sequence.driver_size != sequence.driver_size)
        )

    def reconfigure(self, sequence: SequenceParameters) -> None:
        """Set it up for a stream.

        Raises:
            DependenciesUnknown: it did not decode the sample picture.
        """
        if sequence.driver_size == self.sequence.driver_size:
            self._resize(self._sample.sequence)
            self.decode_sample()
        self._resize(sequence)

    def decode_sample(self) -> Samples:
        """Decode the sample picture, for which it must be set up. The samples are valid until the next call.

        Raises:
            DependenciesUnknown: it does not give one picture.
        """
        self.settle(self._sample.data)
        found = [self.copy(frame) for data in (self._sample.data, b"") for _, frame in self.send(data, 1, seek=0)]
        if len(found) != 1:
            raise DependenciesUnknown(f"a sample picture gave {len(found)} frames")
        return found[0]

    def settle(self, data: bytes) -> None:
        """Decode a picture until timestamps come as they were sent. Does nothing with a decoder that did this before.

        data: a key frame with its parameter sets, of the stream that it is set up for.
        """
        while self._sorted_pictures:
            self._sorted_pictures -= 1
            for part in (data, b""):
                for _ in self.send(part, 1, seek=2):
                    pass

    def _resize(self, sequence: SequenceParameters) -> None:
        self._decoder.setReconfigParams(sequence.width, sequence.height)
        self._resizes += 1
        self.sequence = sequence
        self._samples = _allocate_samples(sequence)

    @property
    def _sample(self) -> SamplePicture:
        return read_sample(self.sequence.codec, self.sequence.bits)

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
    surfaces = sequence.kept_frames + max(sequence.kept_frames, _LEAST_COPIES) + _EXTRA_SURFACES
    return -int(-(side * side * sample * surfaces) // 2**20)


def _growth(decoder: CachedDecoder, sequence: SequenceParameters) -> int:
    """MiB that a decoder may take in addition for a stream."""
    return max(estimate_megabytes(sequence, decoder.side) - decoder.megabytes, 0)


class DecoderCache:
    """The decoders of one GPU, each used by one stream at a time. Thread-safe.

    Attributes:
        megabytes: upper bound of the GPU memory, in MiB, of all decoders now.
        created, reconfigured: how often a decoder was created, and set up for another stream.
    """

    def __init__(self, nvc: Any, cuda: Cuda, *, megabytes: int) -> None:
        """megabytes: MiB of the GPU's memory that the decoders may take together."""
        self._nvc, self._cuda, self._max_megabytes = nvc, cuda, megabytes
        self._idle: list[CachedDecoder] = []  # Most recently used last.
        self.megabytes = 0
        self._changed = threading.Condition()
        self.created = self.reconfigured = 0

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

    def _take(self, sequence: SequenceParameters) -> CachedDecoder:
        longest = max(sequence.coded_size)
        side = next((side for side in SIDES if side >= longest), longest)
        new = estimate_megabytes(sequence, side)
        if new > self._max_megabytes:
            raise DependenciesUnknown(f"its decoder takes {new} MiB, but {self._max_megabytes} are allowed")
        while True:
            spare: CachedDecoder | None = None
            with self._changed:
                decoder = self._find_idle(sequence)
                more = new if decoder is None else _growth(decoder, sequence)
                if self.megabytes + more <= self._max_megabytes:
                    self.megabytes += more
                    if decoder is not None:
                        self._idle.remove(decoder)
                        decoder.megabytes += more
                    break
                # The least recently used one; the one that would have to grow, only where there is no other.
                spare = next((each for each in self._idle if each is not decoder), decoder)
                if spare is not None:
                    self._idle.remove(spare)
                else:
                    self._changed.wait()
            if spare is not None:
                self._discard(spare)
        if decoder is None:
            return self._create(sequence, side, new)
        if not decoder.sequence.covers(sequence):
            self._reconfigure(decoder, sequence, more)
        return decoder

    def _find_idle(self, sequence: SequenceParameters) -> CachedDecoder | None:
        for decoder in reversed(self._idle):
            if decoder.sequence.covers(sequence):
                return decoder
        fit = [decoder for decoder in self._idle if decoder.can_reconfigure(sequence)]
        return min(fit, key=lambda decoder: _growth(decoder, sequence), default=None)

    def _create(self, sequence: SequenceParameters, side: int, needed: int) -> CachedDecoder:
        try:
            self._make_room(needed)
            decoder = CachedDecoder(self._nvc, self._cuda, sequence, side)
        except Exception as error:
            self._release(needed)
            raise DependenciesUnknown(f"no decoder can be created: {error}") from error
        self.created += 1
        return decoder

    def _reconfigure(self, decoder: CachedDecoder, sequence: SequenceParameters, more: int) -> None:
        try:
            if more:
                self._make_room(more)
            decoder.reconfigure(sequence)
        except Exception as error:
            self._discard(decoder)
            raise DependenciesUnknown(f"a decoder cannot be set up for another stream: {error}") from error
        self.reconfigured += 1

    def _make_room(self, megabytes: int) -> None:
        """Discard idle decoders, the least recently used first, until the GPU has so much memory to spare.

        Raises MemoryError where they do not take what is missing.
        """
        while True:
            missing = megabytes + _SPARED_MEGABYTES - self._cuda.memory()[0] // 2**20
            if missing <= 0:
                return
            with self._changed:
                if sum(decoder.megabytes for decoder in self._idle) < missing:
                    raise MemoryError(f"the GPU has no {megabytes} MiB of memory to spare")
                spare = self._idle.pop(0)
            self._discard(spare)

    def _discard(self, decoder: CachedDecoder) -> None:
        decoder.close()
        self._release(decoder.megabytes)

    def _release(self, megabytes: int) -> None:
        with self._changed:
            self.megabytes -= megabytes
            self._changed.notify_all()
