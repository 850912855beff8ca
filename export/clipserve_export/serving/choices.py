"""The serving options of one model."""

import re
from dataclasses import dataclass, replace
from typing import Literal

from clipserve_export.capacity import GPU_GIGABYTES, max_clips, max_gpu_videos, max_videos, max_waiting
from clipserve_export.errors import ServingError
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision, Target

Accelerator = Literal["none", "cuda", "tensorrt"]
CpuAccelerator = Literal["openvino", "none"]

NEWEST = "latest:1"  # Triton's version policy for a config without one
# As many digits as fit into what a config has: 64 bits with a sign for a version, and 32 bits for the K of latest:K.
VERSION_DIGITS, KEEP_DIGITS = 18, 9
_LATEST = re.compile(r"latest(?::([1-9]\d*))?")
_LIST = re.compile(r"[1-9]\d*(?:,[1-9]\d*)*")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The options of one model. The defaults are those of the committed configs.

    Attributes:
        target: the kind of device that batches and warm-up are for. Triton places the network wherever there is room.
        gpu_gigabytes: GiB of a GPU that this network may take, for the target gpu.
        instances: on each GPU, or on the CPU. None: see `instances_for`.
        gpus: numbers of GPUs. None given: every GPU of the machine, or the CPU.
        max_batch: videos in one run. None: what capacity.py allows.
        max_clips: clips of one video. None: what capacity.py allows.
        queue_delay: microseconds that a request waits for others to share a run with.
        max_queue: decoded requests that may wait for the network. None: what capacity.py allows.
        max_inflight: requests between two steps of the ensemble. 0: no limit.
        accelerator: for instances on a GPU.
        cpu_accelerator: for instances on a CPU.
        precision: the network's, where the config depends on it: for TensorRT and the target gpu.
        torchscript: whether the network's file is TorchScript, where the config depends on it: for the target gpu.
        warm_up: whether the network runs before it is ready. None: for the target gpu.
        cache: whether Triton's response cache may answer.
        keep: the versions that are loaded: latest:K, all, or 1,2.
    """

    target: Target = "cpu"
    gpu_gigabytes: int = GPU_GIGABYTES
    instances: int | None = None
    gpus: tuple[int, ...] = ()
    max_batch: int | None = None
    max_clips: int | None = None
    queue_delay: int = 0
    max_queue: int | None = None
    max_inflight: int = 0
    accelerator: Accelerator = "none"
    cpu_accelerator: CpuAccelerator = "openvino"
    precision: Precision = "fp32"
    torchscript: bool = False
    warm_up: bool | None = None
    cache: bool = False
    keep: str = NEWEST

    @property
    def warms_up(self) -> bool:
        """Whether the network runs before it is ready."""
        return self.target == "gpu" if self.warm_up is None else self.warm_up

    def instances_for(self, spec: ModelSpec) -> int:
        """How many instances run side by side: as chosen, else two of TorchScript on a GPU that holds both, else one.

        A single instance leaves an H100 idle half of the time, while it reads requests and writes responses.
        """
        if self.instances or not self.torchscript or self.target == "cpu":
            return self.instances or 1
        return 2 if max_gpu_videos(spec, self.precision, self.gpu_gigabytes // 2) >= (self.max_batch or 1) else 1

    def batch_for(self, spec: ModelSpec) -> int:
        """How many videos may share a run."""
        return self.max_batch or self.largest_batch(spec)

    @property
    def is_for_gpus(self) -> bool:
        """Whether it runs on GPUs alone. There, an accelerator for CPUs would run parts of it."""
        return self.target == "gpu" or bool(self.gpus) or self.accelerator != "none"

    def clips_for(self, spec: ModelSpec) -> int:
        """How many clips of one video a request may ask for."""
        return self.max_clips or max_clips(spec)

    def waiting_for(self, spec: ModelSpec) -> int:
        """How many decoded requests may wait for the network."""
        return self.max_queue or max_waiting(self.batch_for(spec))

    def largest_batch(self, spec: ModelSpec) -> int:
        """How many videos may share a run at most, by their memory. The instances on a GPU share its memory."""
        if self.target == "cpu":
            return max_videos(spec)
        return max_gpu_videos(spec, self.precision, self.gpu_gigabytes // self.instances_for(spec))

    def for_format(self, backend: str, *, before: str | None) -> "Serving":
        """The options for a file of another backend. Accelerators are reset, because they are ONNX Runtime's."""
        if before in (None, backend):
            return self
        return replace(self, accelerator="none", cpu_accelerator="openvino")

    def for_target(self, target: Target) -> "Serving":
        """The options for a file for another target. Those of memory are reset, because they fit the old target.

        For a CPU those of GPUs are, too: a machine without a GPU does not load a network that is placed on one.
        """
        if target == self.target:
            return self
        fitting = replace(self, target=target, gpu_gigabytes=GPU_GIGABYTES, max_batch=None)
        return fitting if target == "gpu" else replace(fitting, gpus=(), accelerator="none")

    def require_possible(self, spec: ModelSpec, backend: str) -> None:
        """Raise ServingError for an option that is not possible with the model or its backend."""
        if self.target == "cpu" and self.gpu_gigabytes != GPU_GIGABYTES:
            raise ServingError(f"--gpu-memory is for networks exported with --target gpu, and {spec.name} is for a CPU")
        bound = self.largest_batch(spec)
        if not bound:
            raise ServingError(
                f"--gpu-memory {self.gpu_gigabytes}: one video of {spec.name} with all its views takes more in each of"
                f" {self.instances_for(spec)} instances; give more, or choose fewer --instances"
            )
        if not 1 <= self.batch_for(spec) <= bound:
            raise ServingError(
                f"--max-batch {self.max_batch}: {spec.name} takes 1 to {bound} videos in a run; more would not fit into"
                " the memory for a run"
            )
        if not 1 <= self.clips_for(spec) <= max_clips(spec):
            raise ServingError(f"--max-clips {self.max_clips}: {spec.name} takes 1 to {max_clips(spec)} of one video")
        if backend != "onnxruntime" and self.accelerator != "none":
            raise ServingError(
                f"--accelerator {self.accelerator} is ONNX Runtime's, and this network is TorchScript: choose"
                " --format onnx, or --accelerator none (LibTorch runs it on the GPU all the same)"
            )


def parse_gpus(text: str) -> tuple[int, ...]:
    """`0,1` -> (0, 1); `all` -> (). Raises ServingError."""
    if text == "all":
        return ()
    if not re.fullmatch(r"\d{1,3}(,\d{1,3})*", text) or len(set(text.split(","))) != len(text.split(",")):
        raise ServingError(f"--gpus {text!r}: give the numbers of GPUs, 0 to 999, each once, such as 0,1, or all")
    return tuple(map(int, text.split(",")))


def parse_keep(text: str) -> str:
    """A version policy, normalised: `latest:K`, `all` or `1,2`. Raises ServingError."""
    if text == "all":
        return text
    latest = _LATEST.fullmatch(text)
    if latest and len(latest[1] or "") <= KEEP_DIGITS:
        return f"latest:{latest[1] or 1}"
    if _LIST.fullmatch(text) and max(map(len, text.split(","))) <= VERSION_DIGITS:
        return ",".join(map(str, sorted(set(map(int, text.split(","))))))
    raise ServingError(
        f"versions {text!r}: give latest:K for the K newest, all, or their numbers, such as 1,2. K has at most"
        f" {KEEP_DIGITS} digits, and a version {VERSION_DIGITS}"
    )


def choose_versions(keep: str, published: list[int]) -> list[int]:
    """The published versions that a server loads under a policy, ascending."""
    if keep == "all":
        return sorted(published)
    if latest := _LATEST.fullmatch(keep):
        return sorted(published)[-int(latest[1] or 1) :]
    return sorted(set(published) & set(map(int, keep.split(","))))
