"""How much memory a network takes, and the bounds that follow from it.

A request may ask for 30 clips of one video (10 views x 3 crops), and Triton's batcher joins requests of equal shape, so
a network can be handed `max_batch_size` x 30 clips at once. Without bounds that is 36 GiB for x3d_m and 173 for
mvit_base_32x3. Three bounds hold whatever backend runs the network, because Triton and the decode step keep them: how
many videos share a run, how many clips a video may have, and how many decoded clips wait. The stand-ins keep a fourth:
they take a run in parts.
"""

from clipserve_export.specs import Geometry, ModelSpec
from clipserve_export.target import Precision

# MiB that one clip more takes, measured as the peak of a process running the ONNX file in ONNX Runtime 1.32 on a CPU
# with 1, 2 and 4 clips (motion 30, x3d_xs 16). The network's own weights and the library, 65 to 340, come on top. Five
# requests of 10 x 3 views at once bring x3d_s's stand-in to 1,803 MiB, all told.
CLIP_MEGABYTES = {
    "x3d_xs": 18,
    "x3d_s": 62,
    "x3d_m": 152,
    "x3d_l": 294,
    "mvit_base_16x4": 235,
    "mvit_base_32x3": 740,
    "motion": 1,
}

# The same on a GPU, beside weights and library: measured on an H100, 32 clips of a contiguous TorchScript file at once.
GPU_CLIP_MEGABYTES: dict[tuple[str, Precision], int] = {("x3d_m", "fp32"): 114, ("x3d_m", "fp16"): 57}

MOST_CLIPS = 30  # of one video: the largest published protocol, 10 views x 3 crops
MOST_VIDEOS = 8  # in one run
RUN_MEGABYTES = 20 * 1024  # of one run: what a GPU of 24 GB has left beside weights and library
GPU_GIGABYTES, GPU_RESERVED_GIGABYTES = 24, 4  # of a GPU, where nothing else is said; beside a run: weights, library
MOST_GPU_VIDEOS = 32  # in one run: an H100 takes 633 clips/s of x3d_m 8 at a time, 652 32 at a time
PART_MEGABYTES = 2 * 1024  # of the parts in which the stand-ins take a run; larger ones are no faster on a CPU
WAITING_RUNS = 2  # for a network, full ones of one view: one waits as the other is decoded, beside the one that runs
WAITING_MEGABYTES = 512  # of decoded clips that wait for a network; one request may always wait


def max_clips(spec: ModelSpec) -> int:
    """Clips of one video (views x crops) that a request may ask for."""
    return min(MOST_CLIPS, RUN_MEGABYTES // CLIP_MEGABYTES[spec.name])


def max_videos(spec: ModelSpec) -> int:
    """Videos that may share a run, a power of two: with `max_clips` each they stay within RUN_MEGABYTES."""
    return min(MOST_VIDEOS, _power_of_two(RUN_MEGABYTES // (CLIP_MEGABYTES[spec.name] * max_clips(spec))))


def max_gpu_videos(spec: ModelSpec, precision: Precision, gigabytes: int) -> int:
    """The same on a GPU of which the network may take so many GiB; 0 where not even one fits with `max_clips`."""
    megabytes = (gigabytes - GPU_RESERVED_GIGABYTES) * 1024
    fitting = megabytes // (gpu_clip_megabytes(spec, precision) * max_clips(spec))
    return min(MOST_GPU_VIDEOS, _power_of_two(fitting)) if fitting > 0 else 0


def gpu_clip_megabytes(spec: ModelSpec, precision: Precision) -> int:
    """MiB that one clip more takes on a GPU: as measured there, else as on a CPU, and half of that in half precision.

    For x3d_m, where both were measured, the CPU's figure is a third larger.
    """
    derived = CLIP_MEGABYTES[spec.name] if precision == "fp32" else -(-CLIP_MEGABYTES[spec.name] // 2)
    return GPU_CLIP_MEGABYTES.get((spec.name, precision), derived)


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)


def part_clips(spec: ModelSpec) -> int:
    """Clips that a stand-in hands to the network at once."""
    return max(1, PART_MEGABYTES // CLIP_MEGABYTES[spec.name])


def max_waiting(videos: int) -> int:
    """Requests that may wait for a network that takes so many videos in a run; others wait before they are decoded.

    Few, because Triton runs what waits for a network, whether its deadline has passed or not.
    """
    return WAITING_RUNS * videos


def clip_bytes(geometry: Geometry) -> int:
    """Of one clip between decode step and network."""
    return geometry.frames * geometry.crop**2 * 3
