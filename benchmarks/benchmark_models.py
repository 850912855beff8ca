"""Networks to measure, in a repository of the benchmarks' own. Speed does not depend on weights, so random ones do."""

from __future__ import annotations

import shutil
from pathlib import Path

from clipserve_export.configs import DECODE, parse_config, print_config
from clipserve_export.exporting import export_model
from clipserve_export.formats import FormatName
from clipserve_export.repository import write_configs
from clipserve_export.specs import ModelSpec

FOLDER = Path(__file__).parents[1] / ".cache" / "benchmarks"


def export_for_benchmark(spec: ModelSpec, format_name: FormatName = "onnx") -> Path:
    """The repository with `spec` in it, exported where the same code has not done so before."""
    repository = FOLDER / format_name
    repository.mkdir(parents=True, exist_ok=True)
    write_configs(repository)
    export_model(
        spec,
        format_name=format_name,
        weights_source="pretrained" if spec.family == "motion" else "random",
        labels_file=None,
        repository=repository,
        reuse=True,
        progress=lambda step: print(f"{spec.name}: {step}", flush=True),
    )
    return repository


def give_a_core_each(spec: ModelSpec, repository: Path, folder: Path) -> Path:
    """A copy of the model's repository in `folder`, where one core decodes and another runs the network."""
    for name in (spec.name, spec.net_name, DECODE):
        shutil.copytree(repository / name, folder / name)
    for name, parameter in ((DECODE, "workers"), (spec.net_name, "intra_op_thread_count")):
        path = folder / name / "config.pbtxt"
        config = parse_config(path.read_text())
        config.parameters[parameter].string_value = "1"
        path.write_text(print_config(config))
    return folder
