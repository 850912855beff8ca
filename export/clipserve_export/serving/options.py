"""The serving options as options of `clipserve export`."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from clipserve_export.serving.choices import Serving, parse_gpus, parse_keep

PANEL = "Serving options (not given: the last choice for this model, else the default)"


class AcceleratorChoice(StrEnum):
    """What runs ONNX networks on a GPU."""

    none = "none"
    cuda = "cuda"
    tensorrt = "tensorrt"


class CpuAcceleratorChoice(StrEnum):
    """What runs ONNX networks on a CPU."""

    openvino = "openvino"
    none = "none"


def _option(*names: str, **how: Any) -> Any:
    return typer.Option(*names, show_default=False, rich_help_panel=PANEL, **how)


@dataclass(frozen=True)
class ServingOptions:
    """Changes to a Serving; None changes nothing. docs/serving-options.md explains each option."""

    gpu_memory: Annotated[
        int | None,
        _option(metavar="GIB", min=5, help="GPU memory that the network may use, with --target gpu. (default: 24)"),
    ] = None
    instances: Annotated[
        int | None,
        _option(
            min=1,
            max=64,
            help="Instances of the network on each GPU, or on the CPU. (default: 1; 2 for TorchScript with --target"
            " gpu)",
        ),
    ] = None
    gpus: Annotated[str | None, _option(metavar="0,1|all", help="Numbers of the GPUs to use. (default: all)")] = None
    max_batch: Annotated[
        int | None,
        _option(min=1, help="The most videos in one run. (default: as many as fit into the memory for a run)"),
    ] = None
    max_clips: Annotated[
        int | None,
        _option(
            min=1,
            help="The most clips of one video, views x crops. (default: 30, or as many as fit into the memory for a"
            " run)",
        ),
    ] = None
    queue_delay: Annotated[
        int | None,
        _option(
            metavar="MICROSECONDS",
            min=0,
            max=10_000_000,
            help="How long a request waits for others to form a batch. (default: 0)",
        ),
    ] = None
    max_queue: Annotated[
        int | None,
        _option(min=1, help="The most decoded requests that wait for the network. Others wait before decoding."),
    ] = None
    max_inflight: Annotated[
        int | None,
        _option(
            min=0,
            max=2**32 - 1,  # of the field
            help="The most requests between decoding and network; 0: no limit. Triton before 25.11, also the embedded"
            " one, refuses to load a model with it. (default: 0)",
        ),
    ] = None
    accelerator: Annotated[
        AcceleratorChoice | None,
        _option(
            help="How ONNX networks run on GPUs. none: CUDA with its defaults. cuda: CUDA with a faster start and less"
            " memory for many shapes. tensorrt: engines, which are built when the model loads (minutes) and kept in"
            " /cache. (default: none)"
        ),
    ] = None
    cpu_accelerator: Annotated[
        CpuAcceleratorChoice | None, _option(help="How ONNX networks run on CPUs. (default: openvino)")
    ] = None
    warm_up: Annotated[
        bool | None,
        _option(
            "--warm-up/--no-warm-up",
            help="Run the network before the model becomes ready. (default: only with tensorrt or --target gpu)",
        ),
    ] = None
    cache: Annotated[
        bool | None,
        _option(
            "--cache/--no-cache",
            help="Use Triton's response cache for equal clips, on a server that was started with --cache-config. A"
            " request then has one video. (default: no)",
        ),
    ] = None
    keep: Annotated[
        str | None, _option(metavar="latest:K|all|1,2", help="Versions that servers load. (default: latest:1)")
    ] = None
    reset: Annotated[
        bool,
        _option("--reset", help="Start from the defaults, not from the last choice. --keep stays as it is."),
    ] = False

    def choose(self, present: Serving) -> Serving:
        """`present` with these changes. Raises ServingError for a value that is not allowed."""
        changes: dict[str, Any] = {
            "gpu_gigabytes": self.gpu_memory,
            "instances": self.instances,
            "gpus": None if self.gpus is None else parse_gpus(self.gpus),
            "max_batch": self.max_batch,
            "max_clips": self.max_clips,
            "queue_delay": self.queue_delay,
            "max_queue": self.max_queue,
            "max_inflight": self.max_inflight,
            "accelerator": self.accelerator and self.accelerator.value,
            "cpu_accelerator": self.cpu_accelerator and self.cpu_accelerator.value,
            # TensorRT builds an engine for the shapes it has seen: the warm-up does so before the first request.
            "warm_up": True if self.warm_up is None and self.accelerator == "tensorrt" else self.warm_up,
            "cache": self.cache,
            "keep": None if self.keep is None else parse_keep(self.keep),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        # `clipserve versions --serve` sets `keep`, too: a reset undoes no rollback.
        start = Serving(target=present.target, keep=present.keep) if self.reset else present
        return replace(start, **given)
