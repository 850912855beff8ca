"""NVDEC, the video decoder of NVIDIA GPUs, through PyNvVideoCodec: the same frames as FFmpeg's, to the bit.

The packets, their dependencies, the plan and the work on pixels are those of the CPU. FFmpeg decodes the first frame of
each stream, which gives the colours, the orientation and the chroma location; NVDEC's samples are put into it, and
NVDEC's first frame must equal it. Whatever is not as expected is left to the CPU.
"""
