"""The decoder of one GPU: what it decodes, and the decoders that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from av.video.codeccontext import VideoCodecContext

from clip_decode.decode.nvdec.bitstream import open_bitstream
from clip_decode.decode.nvdec.cuda import Cuda, CudaError
from clip_decode.decode.nvdec.decoder import NvdecDecoder
from clip_decode.decode.nvdec.decoder_cache import CachedDecoder, DecoderCache
from clip_decode.decode.nvdec.printed_errors import PrintedErrors
from clip_decode.decode.nvdec.sample_pictures import SamplePicture, read_sample
from clip_decode.decode.nvdec.surface import equals_frame
from clip_decode.demux.packets import PacketIndex
from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
from clip_decode.errors import Declined
from clip_decode.limits import Limits

# Kinds of streams: the codec, and bits of a sample.
_KINDS = [(codec, bits) for codec in ("h264", "hevc", "av1") for bits in (8, 10)]
# Those that get a decoder ahead of the first video.
_COMMON_KINDS = (("h264", 8), ("hevc", 8), ("hevc", 10))
_BLOCK = 16  # Pixels; capabilities count blocks of this side.


@dataclass(frozen=True)
class _Capability:
    """What a GPU decodes of one codec and bit depth."""

    width: range
    height: range
    blocks: int

    def covers(self, width: int, height: int) -> bool:
        """Whether the GPU decodes pictures of this coded size."""
        return width in self.width and height in self.height and width * height <= self.blocks * _BLOCK**2


class Nvdec:
    """The video decoder of one GPU. Thread-safe.

    Attributes:
        cache: its decoders.
        least_pixels: of a frame; smaller ones are declined.
        errors: what PyNvVideoCodec prints.
    """

    def __init__(
        self,
        nvc: Any,
        cuda: Cuda,
        *,
        megabytes: int,
        least_pixels: int = 1,
        excluded: Collection[str] = (),
    ) -> None:
        """Ask the GPU what it decodes.

        Args:
            nvc: the module PyNvVideoCodec.
            cuda: the context of the GPU.
            megabytes: MiB of the GPU's memory that the decoders may take together.
            least_pixels: of a frame; smaller ones are declined.
            excluded: kinds to leave to the CPU, whatever the GPU says; see `warm_up`.

        Raises:
            RuntimeError: the driver or a part of it is missing, or answers nothing.
        """
        self.least_pixels, self._cuda = least_pixels, cuda
        self.cache = DecoderCache(nvc, cuda, megabytes=megabytes)
        self._capabilities: dict[tuple[str, int], _Capability] = {}
        self._unanswered: dict[tuple[str, int], str] = {}  # Why the GPU does not say whether it decodes a kind.
        for codec, bits in _KINDS:
            try:
                if _name_kind(codec, bits) not in excluded and (found := _query_capability(nvc, codec, bits)):
                    self._capabilities[codec, bits] = found
            except Exception as error:  # One kind that the driver cannot answer for must not cost the others.
                self._unanswered[codec, bits] = str(error)
        if len(self._unanswered) == len(_KINDS):
            # For want of memory, perhaps: another start may succeed.
            raise RuntimeError(f"the GPU does not say what it decodes: {self._unanswered[_KINDS[0]]}")
        self.errors = PrintedErrors()

    def warm_up(self, on_kind: Callable[[str], None] = lambda kind: None) -> str:
        """Create a decoder of each common kind ahead of the first video, and see that it decodes.

        A kind whose sample picture is not decoded as FFmpeg decodes it is left to the CPU from then on.

        on_kind: called with each kind before its decoder is created: a driver may hang then, or end the process.

        Returns:
            What was done, for the log.
        """
        started = perf_counter()
        results = []
        # The most common one last: where memory is short, it takes the place of the others.
        for codec, bits in reversed(_KINDS):
            name = _name_kind(codec, bits)
            if reason := self._unanswered.get((codec, bits)):
                results.append(f"{name} left to CPUs (the GPU does not say whether it decodes it: {reason})")
            elif (codec, bits) not in self._capabilities:
                results.append(f"{name} left to CPUs")
            elif (codec, bits) in _COMMON_KINDS:
                on_kind(name)
                results.append(f"{name} {self._decode_sample(codec, bits) or 'ready'}")
            else:
                results.append(f"{name} on demand")
        return f"{', '.join(reversed(results))}; after {perf_counter() - started:.2f} s"

    @property
    def is_lost(self) -> bool:
        """Whether the driver answers nothing any more: after some errors only a new process can use the GPU."""
        try:
            self._cuda.memory()
        except CudaError:
            return True
        return False

    @property
    def kinds(self) -> list[str]:
        """The kinds of streams that it decodes: codec, and bits of a sample."""
        return [_name_kind(codec, bits) for codec, bits in self._capabilities]

    def _decode_sample(self, codec: str, bits: int) -> str:
        """Create a decoder, and decode a sample picture with it. Returns what went wrong."""
        sample, fault = read_sample(codec, bits), ""
        if not self._capabilities[codec, bits].covers(*sample.sequence.coded_size):
            return "not created ahead (the GPU decodes no picture of the sample's size)"
        try:
            with self.cache.acquire(sample.sequence) as decoder:
                fault = self._find_fault(decoder, sample)
                if fault:
                    raise DependenciesUnknown(fault)  # So the decoder is discarded.
        except DependenciesUnknown as reason:
            if not fault:
                return f"not created ahead ({reason})"
            del self._capabilities[codec, bits]
            return f"left to CPUs ({fault})"
        finally:
            self._cuda.clear_thread()
        return ""

    def _find_fault(self, decoder: CachedDecoder, sample: SamplePicture) -> str:
        errors_before = self.errors.count()
        try:
            is_right = equals_frame(sample.decode_on_cpu(), decoder.decode_sample())
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if self.errors.count() != errors_before:
            return "the hardware reported an error"
        return "" if is_right else "its sample picture is wrong"

    def check(self, context: VideoCodecContext) -> None:
        """Decline a stream by what its container states, before its packets are read.

        Raises:
            Declined: the GPU does not decode this codec, or frames of this size.
        """
        codec = context.codec.canonical_name
        found = [capability for (name, _), capability in self._capabilities.items() if name == codec]
        # The displayed size; the coded size, known later, is up to a block larger.
        is_small = context.width * context.height < self.least_pixels
        if is_small or not any(capability.covers(context.width, context.height) for capability in found):
            raise Declined(f"{codec} of {context.width} x {context.height} pixels")

    @contextmanager
    def open(
        self, context: VideoCodecContext, index: PacketIndex, display_order: Sequence[int], limits: Limits
    ) -> Iterator[NvdecDecoder]:
        """A decoder for one stream. It takes one from the cache when it begins to decode.

        Args:
            context: FFmpeg's decoder of the stream; it has decoded nothing.
            index: the packets.
            display_order: numbers of the packets that are shown, in display order.
            limits: bounds of the video.

        Raises:
            DependenciesUnknown: NVDEC does not decode the stream, or not as FFmpeg does.
        """
        stream = open_bitstream(context.codec.canonical_name, context.extradata or b"", bytes(index.packets[0]))
        sequence = stream.sequence
        capability = self._capabilities.get((sequence.codec, sequence.bits))
        if capability is None or not capability.covers(sequence.coded_width, sequence.coded_height):
            raise DependenciesUnknown(
                f"{sequence.codec} of {sequence.coded_width} x {sequence.coded_height} pixels, {sequence.bits} bits"
            )
        errors_before = self.errors.count()
        try:
            with ExitStack() as stack:
                yield NvdecDecoder(
                    lambda: stack.enter_context(self.cache.acquire(sequence)),
                    stream,
                    context,
                    index,
                    display_order,
                    limits,
                )
                if self.errors.count() != errors_before:
                    raise DependenciesUnknown("the hardware reported an error")
        except CudaError as error:
            raise DependenciesUnknown(f"a frame could not be copied: {error}") from error
        finally:
            self._cuda.clear_thread()


def _name_kind(codec: str, bits: int) -> str:
    return f"{codec} of {bits} bits"


def _query_capability(nvc: Any, codec: str, bits: int) -> _Capability | None:
    answer = nvc.GetDecoderCaps(
        gpuid=0,
        codec=getattr(nvc.cudaVideoCodec, codec.upper()),
        chromaformat=getattr(nvc.cudaVideoChromaFormat, "420"),
        bitdepth=bits,
    )
    if not answer["supported"]:
        return None
    return _Capability(
        width=range(answer["width_min"], answer["width_max"] + 1),
        height=range(answer["height_min"], answer["height_max"] + 1),
        blocks=answer["mb_num_max"],
    )
