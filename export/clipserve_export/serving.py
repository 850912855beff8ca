"""How a network is served: what the operator of a server chooses, and the specs leave open.

The choices live in config.pbtxt and nowhere else. They are written there by serving_config.py and read back from it, so
a config is as it should be when some choice gives it, and an export that is told nothing keeps what was chosen before.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from clipserve_export.capacity import GPU_GIGABYTES, max_clips, max_gpu_videos, max_videos, max_waiting
from clipserve_export.errors import ServingError
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision, Target

Accelerator = Literal["none", "cuda", "tensorrt"]
CpuAccelerator = Literal["openvino", "none"]

NEWEST = "latest:1"  # Triton's own version policy, where a config names none
_LATEST = re.compile(r"latest(?::([1-9]\d*))?")
_LIST = re.compile(r"[1-9]\d*(?:,[1-9]\d*)*")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The choices for one model. The defaults are those of the committed configs."""

    target: Target = "cpu"  # what batches and warm-up are for; Triton places the network wherever there is room
    gpu_gigabytes: int = GPU_GIGABYTES  # of a GPU that this network may take, for the target gpu
    instances: int | None = None  # on each GPU, or on the CPU; None: see `instances_for`
    gpus: tuple[int, ...] = ()  # () leaves it to Triton: every GPU there is, or the CPU
    max_batch: int | None = None  # videos in one run; None: what capacity.py allows
    max_clips: int | None = None  # of one video; None: what capacity.py allows
    queue_delay: int = 0  # microseconds that a request waits for others to run with
    max_queue: int | None = None  # decoded requests that wait for the network; None: what capacity.py allows
    max_inflight: int = 0  # requests between two steps of the ensemble; 0 sets no bound
    accelerator: Accelerator = "none"  # of instances on a GPU
    cpu_accelerator: CpuAccelerator = "openvino"  # of instances on a CPU
    precision: Precision = "fp32"  # follows the network's, where the config depends on it: TensorRT, the target gpu
    torchscript: bool = False  # follows the network's file, for the target gpu
    warm_up: bool | None = None  # None: for the target gpu
    cache: bool = False
    keep: str = NEWEST  # which versions are loaded: latest:K, all, or 1,2

    @property
    def warms_up(self) -> bool:
        """Whether the network runs once before it is ready."""
        return self.target == "gpu" if self.warm_up is None else self.warm_up

    def instances_for(self, spec: ModelSpec) -> int:
        """How many run side by side: as chosen, else two of TorchScript on a GPU that holds both, else one.

        One leaves an H100 idle half of the time, while it takes requests and gives answers.
        """
        if self.instances or not self.torchscript or self.target == "cpu":
            return self.instances or 1
        return 2 if max_gpu_videos(spec, self.precision, self.gpu_gigabytes // 2) >= (self.max_batch or 1) else 1

    def batch_for(self, spec: ModelSpec) -> int:
        """How many videos of `spec` may share a run."""
        return self.max_batch or self.largest_batch(spec)

    @property
    def is_for_gpus(self) -> bool:
        """Whether it is meant to run on GPUs alone, where an accelerator for CPUs would take parts of it."""
        return self.target == "gpu" or bool(self.gpus) or self.accelerator != "none"

    def clips_for(self, spec: ModelSpec) -> int:
        """How many clips of one video a request may ask for."""
        return self.max_clips or max_clips(spec)

    def waiting_for(self, spec: ModelSpec) -> int:
        """How many decoded requests may wait for the network."""
        return self.max_queue or max_waiting(self.batch_for(spec))

    def largest_batch(self, spec: ModelSpec) -> int:
        """How many may at most, by what they take. Instances share a GPU's memory: each has weights and a run."""
        if self.target == "cpu":
            return max_videos(spec)
        return max_gpu_videos(spec, self.precision, self.gpu_gigabytes // self.instances_for(spec))

    def for_format(self, backend: str, *, before: str | None) -> "Serving":
        """The same for a file of another backend: the accelerators are ONNX Runtime's, and chosen for it."""
        if before in (None, backend):
            return self
        return replace(self, accelerator="none", cpu_accelerator="openvino")

    def for_target(self, target: Target) -> "Serving":
        """The same for a file for another target: how much fits into a run was chosen for the one before."""
        if target == self.target:
            return self
        return replace(self, target=target, gpu_gigabytes=GPU_GIGABYTES, max_batch=None)

    def require_possible(self, spec: ModelSpec, backend: str) -> None:
        """Raise ServingError for a choice that the model or its backend cannot keep."""
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
                " the memory that capacity.py allows for one"
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
    if not re.fullmatch(r"\d+(,\d+)*", text) or len(set(text.split(","))) != len(text.split(",")):
        raise ServingError(f"--gpus {text!r}: give the numbers of GPUs, each once, such as 0,1, or all")
    return tuple(map(int, text.split(",")))


def parse_keep(text: str) -> str:
    """A version policy in its one spelling: `latest:K`, `all` or `1,2`. Raises ServingError."""
    if text == "all":
        return text
    if latest := _LATEST.fullmatch(text):
        return f"latest:{latest[1] or 1}"
    if _LIST.fullmatch(text):
        return ",".join(map(str, sorted(set(map(int, text.split(","))))))
    raise ServingError(f"versions {text!r}: give latest:K for the K newest, all, or their numbers, such as 1,2")


def choose_versions(keep: str, published: list[int]) -> list[int]:
    """Which of the published versions a server loads under a policy, ascending."""
    if keep == "all":
        return sorted(published)
    if latest := _LATEST.fullmatch(keep):
        return sorted(published)[-int(latest[1] or 1) :]
    return sorted(set(published) & set(map(int, keep.split(","))))
