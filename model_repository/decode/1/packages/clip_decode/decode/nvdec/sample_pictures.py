"""One small picture of each kind of stream that NVDEC decodes.

With it a decoder is created before a video comes, and set up anew where a video alone cannot do it.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from functools import cache

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from clip_decode.decode.nvdec.bitstream import open_bitstream
from clip_decode.decode.nvdec.sequence_parameter_set import SequenceParameters

# By codec, and bits of a sample: a gradient of 208 x 176 pixels, by libx264 and libx265 (crf=40) and SVT-AV1 (crf=60).
_PICTURES = {
    ("h264", 8): (
        "AAAAAWdkACis2UNF6EAAAAMAQAAADIPGDGWAAAAAAWjr4OSyLAAAAAFliIQA3+/8ZkiMm3f2rizHhe99TdbVvnDVXZtNgHyQrCmuR7FoDETO"
        "Hban4V/582PfRz2X9msRiu8ZnD/mA7yecgEi3kUYmyjZ850w18vCXHHjeBvgQERvGxvwwG2CWbokugZrpSPXbIDF5WwAJ7wa6b71gAnmhZKU"
        "sjvUR0PAmCc="
    ),
    ("h264", 10): (
        "AAAAAWduACimzZQ0XoQAAAMABAAAAwDIPGDGWAAAAAFo6+DksiwAAAABZYiEAN8cfH/2CUVMXbyTbEGYzSD8RWEeznKH91MhKAwnJA4xTga3"
        "+A8Qn00o80EPD0jvuZduPcwrFzklldVw0bow/rBz3z5dugju5XfaPbvksNH4tYFZvln19G4KNN12b4zyfLcrLBAHwBH3EB/DlkkUalnR8NOV"
        "iNSOeCwlsE1MjgsXEMgILy0="
    ),
    ("hevc", 8): (
        "AAAAAUABDAH//wFgAAADAJAAAAMAAAMAPJWYCQAAAAFCAQEBYAAAAwCQAAADAAADADygGiAsWWVmkkyuaAgAAAMACAAAAwDIQAAAAAFEAcFy"
        "tCJAAAAAASgBrwTY/Ud/erjZF6COt9bXvc/7DKBEGZIzqDdyfHcn8yfaFI515/pwl+u3bimBAC3tHlAWYW+uWYOk+SOCZnvErksXuNsH2qCB"
        "eehWPDdAeCQWRwgZsEhIjnbqd5OAFknZ5nL9eCiAWfX4AGaTQvsa5GAXTLbr5Q=="
    ),
    ("hevc", 10): (
        "AAAAAUABDAH//wIgAAADAJAAAAMAAAMAPJWYCQAAAAFCAQECIAAAAwCQAAADAAADADygGiAsTZZWaSTK5oCAAAADAIAAAAyEAAAAAUQBwXK0"
        "IkAAAAABKAGvBNj9R396uNkXoI631te9z/sMoEQZkjOoN3O8d6SwThLJzenZCy8QuqV2EM54CnnIaAHWh+165ZilpeALX+8Vx+uL4QP7AxTL"
        "girtwhRNqWtC+oqw5zlQpA91wqfQJlvcj1B1GW/gAgvJeMAAAAMCmgSAAACyaJCA"
    ),
    ("av1", 8): (
        "EgAKCwAAAAO+fXhV8gCAMk8QAJ4Af/22hn4cBF7OHyNGi5q6N+AIQgP8GSJANFWrdgoyAyBp0PPKH1iFc4BSn2doNQEnfjOb183W1/BcbqF3"
        "yajVKycgI+DSeMHgBlAl"
    ),
    ("av1", 10): (
        "EgAKCwAAAAO+fXhV8oCAMkoQAJ4Af/7bBn4cAvcRW3gXOjWyfeXiNcBpipbYc/VMOQ1cPsGFz5eBf0hnlr2Baey+4H37igRx5yDGBj1xHCRy"
        "BR/6SVdbSpVz0g=="
    ),
}


@dataclass(frozen=True)
class SamplePicture:
    """A key frame with its parameter sets.

    Attributes:
        data: in Annex B; AV1: OBUs.
        sequence: what its parameter sets say.
    """

    data: bytes
    sequence: SequenceParameters

    def decode_on_cpu(self) -> VideoFrame:
        """The picture as FFmpeg decodes it."""
        codec = "libdav1d" if self.sequence.codec == "av1" else self.sequence.codec
        context = av.CodecContext.create(codec, "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        (frame,) = [*context.decode(Packet(self.data)), *context.decode(None)]
        return frame


@cache
def read_sample(codec: str, bits: int) -> SamplePicture:
    """The picture of a kind of stream. Raises KeyError where there is none."""
    data = b64decode(_PICTURES[codec, bits])
    return SamplePicture(data, open_bitstream(codec, b"", data).sequence)
