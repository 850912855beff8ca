"""The serving options of a model in a repository: as they are, fitted to a new file, and changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipserve_export.access import explain_write_errors, locked
from clipserve_export.formats import Format
from clipserve_export.records import published_numbers
from clipserve_export.repository import read_chosen, read_specs, require_chosen, write_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision, Target
from clipserve_export.versions import require_engines, require_versions, written_precision


def present_serving(repository: Path, spec: ModelSpec, form: Format, target: Target = "cpu") -> Serving:
    """The options of the model's configs, as far as they fit a file of this format for this target."""
    # What clips of an own network take is known from its last export, and not yet from its source.
    chosen = read_chosen(repository, read_specs(repository).get(spec.name, spec))
    if chosen is None:
        return Serving().for_target(target)
    return chosen.serving.for_format(form.backend, before=chosen.form.backend).for_target(target)


def fit_serving(spec: ModelSpec, form: Format, serving: Serving, *, precision: Precision) -> Serving:
    """The options for a network in this precision. Raises ServingError when they are not possible."""
    on_gpu = serving.target == "gpu"
    serving = replace(
        serving,
        precision=precision if on_gpu or serving.accelerator == "tensorrt" else "fp32",
        torchscript=on_gpu and form.name == "torchscript",
    )
    serving.require_possible(spec, form.backend)
    return serving


def change_serving(repository: Path, spec: ModelSpec, change: Callable[[Serving], Serving]) -> list[Path]:
    """Change the options without exporting the model again. Returns the files written. Raises ExportError.

    change: called while no other program can change the options that it is given.
    """
    with explain_write_errors(repository), locked(repository):
        chosen = require_chosen(repository, spec)
        precision = written_precision(repository, spec)
        serving = fit_serving(spec, chosen.form, change(chosen.serving), precision=precision)
        numbers = published_numbers(repository, spec)
        if numbers:
            require_versions(spec, serving.keep, numbers)
        require_engines(repository, spec, numbers, serving)
        return write_serving(repository, spec, serving)
