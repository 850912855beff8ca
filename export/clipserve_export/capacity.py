"""How much memory a network takes, and the limits that follow from it.

A request may ask for 30 clips of one video (10 views x 3 crops), and Triton's batcher joins requests of equal shape. So
a network can get `max_batch_size` x 30 clips at once. Without limits that is 36 GiB for x3d_m and 173 for
mvit_base_32x3. Three limits hold for every backend, because Triton and the decode step enforce them: how many videos
share a run, how many clips a video may have, and how many decoded clips wait. The substitute backends have a fourth:
they split a run into parts. On a GPU these are for the libraries, not for the memory.

What a clip takes is a fact of the model (ModelSpec.clip_megabytes): the growth of the peak of a process that runs the
ONNX file in ONNX Runtime 1.32 on a CPU with 1, 2 and 4 clips (motion 30, x3d_xs 16). The network's weights and the
library take 65 to 340 MiB more. Five requests of 10 x 3 views at once bring the substitute backend of x3d_s to 1,803
MiB in all. On a GPU (gpu_clip_megabytes) it is measured without weights and library, on an H100 with 32 clips of a
contiguous TorchScript file.
"""

from clipserve_export.specs import Geometry, ModelSpec
from clipserve_export.target import Precision

MAX_CLIPS = 30  # of one video: the largest published protocol, 10 views x 3 crops
MAX_VIDEOS = 8  # in one run
RUN_MEGABYTES = 20 * 1024  # for one run: what a GPU of 24 GB has beside weights and library
GPU_GIGABYTES, GPU_RESERVED_GIGABYTES = 24, 4  # of a GPU by default; of these, for weights and library
MAX_GPU_VIDEOS = 32  # in one run: an H100 runs 633 clips/s of x3d_m 8 at a time, 652 32 at a time
TENSOR_VALUES = 2**31  # of one tensor on a GPU
PART_MEGABYTES = 2 * 1024  # for a part of a run in the substitute backends; larger parts are no faster on a CPU
WAITING_RUNS = 2  # full runs of one view: one waits and one is decoded, while a third runs
WAITING_MEGABYTES = 512  # for decoded clips that wait for a network; one request may always wait


def max_clips(spec: ModelSpec) -> int:
    """How many clips of one video (views x crops) a request may ask for."""
    return min(MAX_CLIPS, RUN_MEGABYTES // spec.clip_megabytes)


def max_videos(spec: ModelSpec) -> int:
    """How many videos may share a run, a power of two: with `max_clips` each they fit into RUN_MEGABYTES."""
    return min(MAX_VIDEOS, _power_of_two(RUN_MEGABYTES // (spec.clip_megabytes * max_clips(spec))))


def max_gpu_videos(spec: ModelSpec, precision: Precision, gigabytes: int) -> int:
    """The same on a GPU, of which the network may take so many GiB; 0 if not even one video with `max_clips` fits."""
    megabytes = (gigabytes - GPU_RESERVED_GIGABYTES) * 1024
    fitting = megabytes // (gpu_clip_megabytes(spec, precision) * max_clips(spec))
    return min(MAX_GPU_VIDEOS, _power_of_two(fitting)) if fitting > 0 else 0


def gpu_clip_megabytes(spec: ModelSpec, precision: Precision) -> int:
    """MiB for each clip on a GPU: measured there, else the CPU's number, and half of that in half precision.

    Both were measured for x3d_m: the CPU's number is a third larger.
    """
    derived = spec.clip_megabytes if precision == "fp32" else -(-spec.clip_megabytes // 2)
    return spec.gpu_clip_megabytes.get(precision, derived)


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)


def part_clips(spec: ModelSpec) -> int:
    """How many clips a substitute backend runs at once."""
    return max(1, PART_MEGABYTES // spec.clip_megabytes)


def gpu_part_clips(spec: ModelSpec, precision: Precision) -> int:
    """How many clips a substitute backend runs at once on a GPU: no tensor of theirs has 2^31 values.

    To more values PyTorch's depthwise convolution says "Input tensor is too large", and later releases leave them to
    cuDNN, which has not been tested. A tensor is not larger than the memory that its clips take. Such parts keep a GPU
    busy.
    """
    megabytes = TENSOR_VALUES * (4 if precision == "fp32" else 2) // 2**20
    return max(1, megabytes // gpu_clip_megabytes(spec, precision))


def max_waiting(videos: int) -> int:
    """How many decoded requests may wait for a network with so many videos in a run. Others wait before decoding.

    Few, because Triton runs a request that waits for a network even after its deadline.
    """
    return WAITING_RUNS * videos


def clip_bytes(geometry: Geometry) -> int:
    """Bytes of one clip between the decode step and the network."""
    return geometry.frames * geometry.crop**2 * 3
