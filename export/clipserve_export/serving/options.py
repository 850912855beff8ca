"""The serving options as options of `clipserve export`."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from clipserve_export.serving.choices import Serving, parse_gpus, parse_keep

PANEL = "Serving (not given: as the model is served now, else the default)"


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
        _option(metavar="GIB", min=5, help="Of a GPU that the network may take, with --target gpu. (default: 24)"),
    ] = None
    instances: Annotated[
        int | None,
        _option(
            min=1,
            max=64,
            help="Networks side by side on each GPU, or on the CPU. (default: 1; 2 of TorchScript with --target gpu)",
        ),
    ] = None
    gpus: Annotated[
        str | None, _option(metavar="0,1|all", help="Which GPUs; all leaves it to Triton. (default: all)")
    ] = None
    max_batch: Annotated[
        int | None, _option(min=1, help="Videos in one run. (default: what fits into the memory of one)")
    ] = None
    max_clips: Annotated[
        int | None,
        _option(min=1, help="Clips of one video, views x crops. (default: 30, or what fits into the memory of a run)"),
    ] = None
    queue_delay: Annotated[
        int | None,
        _option(
            metavar="MICROSECONDS",
            min=0,
            max=10_000_000,
            help="How long a request waits for others to run with. (default: 0)",
        ),
    ] = None
    max_queue: Annotated[
        int | None,
        _option(min=1, help="Decoded requests that wait for the network; others wait undecoded."),
    ] = None
    max_inflight: Annotated[
        int | None,
        _option(
            min=0,
            help="Requests between decoding and network; 0: no bound. Older Tritons than 25.11 refuse to load a model"
            " with it, the embedded one among them. (default: 0)",
        ),
    ] = None
    accelerator: Annotated[
        AcceleratorChoice | None,
        _option(
            help="ONNX on GPUs: none is CUDA as it comes, cuda a faster start and less memory with many shapes,"
            " tensorrt engines built when the model loads (minutes) and kept in /cache. (default: none)"
        ),
    ] = None
    cpu_accelerator: Annotated[CpuAcceleratorChoice | None, _option(help="ONNX on CPUs. (default: openvino)")] = None
    warm_up: Annotated[
        bool | None,
        _option(
            "--warm-up/--no-warm-up",
            help="Run the network before it is ready. (default: with tensorrt or --target gpu)",
        ),
    ] = None
    cache: Annotated[
        bool | None,
        _option(
            "--cache/--no-cache",
            help="Let a server started with --cache-config answer equal clips from memory. The network only:"
            " Triton's key leaves out request parameters. One video a request then. (default: no)",
        ),
    ] = None
    keep: Annotated[
        str | None, _option(metavar="latest:K|all|1,2", help="Versions that are loaded. (default: latest:1)")
    ] = None
    reset: Annotated[bool, _option("--reset", help="Start from the defaults instead of what was chosen before.")] = (
        False
    )

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
        return replace(Serving(target=present.target) if self.reset else present, **given)
