"""Which decoder the decode step is to use: its config says so, and this stands above it."""

from enum import StrEnum

DECODER_VARIABLE = "CLIPSERVE_DECODER"  # how the decode step, a process of Triton, is told


class Decoder(StrEnum):
    """What decodes videos.

    NVDEC is the video decoder of NVIDIA's GPUs, with the CPU beside it; it fails where there is none. AUTO is NVDEC
    where there is one, and CPU elsewhere.
    """

    AUTO = "auto"
    CPU = "cpu"
    NVDEC = "nvdec"
