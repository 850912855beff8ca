"""Models to measure, in a model repository of the benchmarks, and servers for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.results import CACHE
from clipserve_export.configs import DECODE, parse_config, print_config
from clipserve_export.exporting import export_network
from clipserve_export.formats import FormatName
from clipserve_export.repository import write_configs
from clipserve_export.serving.choices import Serving
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import ModelSpec
from clipserve_export.weights import offline_weights
from clipserve_server.triton import Triton


def export_for_benchmark(
    spec: ModelSpec, format_name: FormatName = "onnx", *, gpu_gigabytes: int | None = None
) -> Path:
    """Export the model into the repository of the benchmarks, unless the same code did so before.

    gpu_gigabytes: GiB of a GPU that the network may take. None: it is for a CPU.
    """
    repository = CACHE / (f"{format_name}-gpu" if gpu_gigabytes else format_name)
    repository.mkdir(parents=True, exist_ok=True)
    write_configs(repository)
    export_network(
        PublishedSource(spec, offline_weights(spec)),  # the speed does not depend on them
        format_name=format_name,
        target="gpu" if gpu_gigabytes else "cpu",
        precision="auto" if gpu_gigabytes else "fp32",
        serving=Serving(target="gpu", gpu_gigabytes=gpu_gigabytes) if gpu_gigabytes else None,
        repository=repository,
        reuse=True,
        progress=lambda step: print(f"{spec.name}: {step}", flush=True),
    )
    return repository


def copy_repository(
    spec: ModelSpec, repository: Path, folder: Path, changes: Mapping[str, Callable[[Any], None]]
) -> Path:
    """Copy a model and the decode step into `folder`. `changes`: model name -> a change of its config (ModelConfig)."""
    for name in (spec.name, spec.net_name, DECODE):
        shutil.copytree(repository / name, folder / name)
    for name, change in changes.items():
        path = folder / name / "config.pbtxt"
        config = parse_config(path.read_text())
        change(config)
        path.write_text(print_config(config))
    return folder


def serve(repository: Path, *models: str, **options: Any) -> Triton:
    """A Triton with these models on free ports; a context manager. `options`: those of Triton."""
    return Triton(repository, models=list(models), http_port=0, grpc_port=0, metrics_port=0, **options)
