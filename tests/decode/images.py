"""Pictures one by one, and the EXIF that cameras put into them; files that show them one after the other."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from tests.decode.synthesis import paint_texture

FORMATS = {"mjpeg": "yuvj420p", "png": "rgb24", "bmp": "bgr24", "gif": "rgb8", "tiff": "rgb24", "libwebp": "yuv420p"}


def make_image(codec: str, number: int = 0, width: int = 96, height: int = 64) -> bytes:
    """The bytes of a still picture: frame `number` of the moving texture."""
    context = VideoCodecContext.create(codec, "w")
    context.width, context.height = width, height
    context.pix_fmt = FORMATS[codec]
    context.time_base = Fraction(1, 25)
    frame = VideoFrame.from_ndarray(paint_texture(number, width, height), format="rgb24")
    packets = context.encode(frame.reformat(format=FORMATS[codec])) + context.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def write_exif(orientation: int) -> bytes:
    """An EXIF block, which is a TIFF file, with one entry: 0x0112, orientation, as one short."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def add_exif(image: bytes, orientation: int) -> bytes:
    """A JPEG or PNG image with an orientation from 1 (upright) to 8."""
    exif = write_exif(orientation)
    if image.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + exif
        return image[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + image[2:]
    # After the signature and IHDR.
    return image[:33] + make_chunk(b"eXIf", exif) + image[33:]


def make_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def mux_images(images: Iterable[bytes], codec: str, container: str) -> bytes:
    """A video whose packets are these images, ten a second."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_mux_stream(codec, rate=10, width=96, height=64)
        for number, image in enumerate(images):
            packet = Packet(image)
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = number
            packet.duration, packet.is_keyframe = 1, True
            output.mux(packet)
    return file.getvalue()
