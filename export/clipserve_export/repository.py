"""The model repository on disk: which files belong in it, and how they differ."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve.contract import WEIGHTS_FIELDS, ClipContract
from clipserve_export.access import explain_write_errors, locked
from clipserve_export.configs import (
    DECODE,
    DECODE_PARAMETERS,
    DEFAULTS,
    TIMELINE,
    TIMELINE_PARAMETERS,
    decode_config,
    ensemble_config,
    net_config,
    parse_config,
    print_config,
    read_contract,
    read_parameters,
    timeline_config,
)
from clipserve_export.errors import RepositoryError
from clipserve_export.families.adapter import PACKAGE
from clipserve_export.formats import FORMATS, Format
from clipserve_export.labels import published_labels, read_labels
from clipserve_export.moves import replace_texts
from clipserve_export.records import find_lacking_openvino, fit_spec, read_records
from clipserve_export.serving.choices import Serving
from clipserve_export.serving.config import read_clip_megabytes, read_serving
from clipserve_export.specs import OWN, SPECS, ModelSpec

VERSION = "1"  # the first version of a network; the only one of an ensemble and the decode step
CONFIG, LABELS = "config.pbtxt", "labels.txt"
CHECKOUT_REPOSITORY = PACKAGE.parents[1] / "model_repository"
# The code of the Python models by its place in a repository: folders of the checkout, or of an installed wheel.
CHECKOUT_CODE = {Path(name, VERSION): CHECKOUT_REPOSITORY / name / VERSION for name in (DECODE, TIMELINE)}
WHEEL_CODE = {
    Path(DECODE, VERSION): PACKAGE / "decode_step",
    Path(DECODE, VERSION, "packages/clip_decode"): PACKAGE.parent / "clip_decode",
    Path(TIMELINE, VERSION): PACKAGE / "timeline_step",
}


def label_text(labels: Sequence[str]) -> str:
    """The text of a label file."""
    return "".join(f"{label}\n" for label in labels)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What an export chose for a model, read from its configs."""

    form: Format
    contract: ClipContract
    serving: Serving

    @property
    def classes(self) -> int:
        """K: how many it tells apart."""
        return self.contract.classes or 0


def expected_files(repository: Path) -> dict[Path, str]:
    """The expected text of every generated file, by its path, from the specs and what exports have chosen.

    The format, the class count, the serving options and the decode step's own parameters are read from the present
    configs. A model without configs is ONNX with the published classes and the defaults.
    """
    specs = read_specs(repository)
    decode = _read_shared(repository, DECODE)
    all_chosen = {name: _read_chosen(repository, spec, decode) for name, spec in specs.items()}
    files = _shared_configs(repository, specs.values(), all_chosen)
    for spec in specs.values():
        labels = read_labels(published_labels(spec)) if spec.labels else []
        published = Chosen(form=FORMATS["onnx"], contract=spec.contract, serving=DEFAULTS)
        chosen = all_chosen[spec.name] or published
        files |= _own_configs(spec, chosen, read_records(repository, spec))
        files[Path(spec.name, VERSION, ".gitkeep")] = ""  # an ensemble needs a version folder
        if chosen.classes == len(labels):
            files[Path(spec.net_name, LABELS)] = label_text(labels)
    return files


def read_specs(repository: Path) -> dict[str, ModelSpec]:
    """Every model by its name: those that can be exported by name, and the others that `repository` holds."""
    found = {}
    for path in sorted(repository.glob(f"*/{CONFIG}")):
        name = path.parent.name
        if name in SPECS or name in (DECODE, TIMELINE):
            continue
        if contract := read_contract(_read_or_empty(repository, name)):
            on_cpu, on_gpu = read_clip_megabytes(_read_or_empty(repository, f"{name}_net"))
            found[name] = ModelSpec(
                name=name, family=OWN, contract=contract, labels="", clip_megabytes=on_cpu, gpu_clip_megabytes=on_gpu
            )
    return _in_order(SPECS | found)


def _in_order(specs: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    # The shared configs list networks, and must not depend on which was published first.
    return {name: specs[name] for name in (*SPECS, *sorted(specs.keys() - SPECS))}


def find_spec(repository: Path, name: str) -> ModelSpec:
    """The model of this name. Raises RepositoryError, which lists the models."""
    specs = read_specs(repository)
    if name not in specs:
        raise RepositoryError(f"there is no model {name!r}; there are {', '.join(specs)}")
    return specs[name]


def model_configs(
    repository: Path, spec: ModelSpec, chosen: Chosen, new: Mapping[int, Mapping[str, Any]] | None = None
) -> dict[Path, str]:
    """The configs of a network, its ensemble, the decode step and timelines, which must agree, by their paths.

    Those of the decode step and of timelines keep what was chosen for the other networks of `repository`, and what an
    operator has set.

    new: records of versions to come, by number.
    """
    records = {**read_records(repository, spec), **(new or {})}
    spec = fit_spec(spec, records, chosen.serving.keep)
    specs = _in_order(read_specs(repository) | {spec.name: spec})
    decode = _read_shared(repository, DECODE)
    others = {name: _read_chosen(repository, other, decode) for name, other in specs.items() if name != spec.name}
    shared = _shared_configs(repository, specs.values(), others | {spec.name: chosen})
    return shared | _own_configs(spec, chosen, records)


def _shared_configs(
    repository: Path, specs: Iterable[ModelSpec], chosen: Mapping[str, Chosen | None]
) -> dict[Path, str]:
    servings = {name: each.serving for name, each in chosen.items() if each}
    decode = decode_config(specs, servings, read_parameters(_read_shared(repository, DECODE), DECODE_PARAMETERS))
    timeline = timeline_config(
        specs, servings, read_parameters(_read_shared(repository, TIMELINE), TIMELINE_PARAMETERS)
    )
    return {Path(DECODE, CONFIG): print_config(decode), Path(TIMELINE, CONFIG): print_config(timeline)}


def _own_configs(spec: ModelSpec, chosen: Chosen, records: Mapping[int, Mapping[str, Any]]) -> dict[Path, str]:
    lacking = find_lacking_openvino(records, chosen.serving.keep)
    net = net_config(spec, chosen.form, classes=chosen.classes, serving=chosen.serving, lacking_openvino=lacking)
    ensemble = ensemble_config(spec, classes=chosen.classes, serving=chosen.serving, contract=chosen.contract)
    return {Path(spec.net_name, CONFIG): print_config(net), Path(spec.name, CONFIG): print_config(ensemble)}


def read_chosen(repository: Path, spec: ModelSpec) -> Chosen | None:
    """What the configs of a model say. None if the network has no config that can be read.

    Raises RepositoryError where that of the decode step cannot be read.
    """
    return _read_chosen(repository, spec, _read_shared(repository, DECODE))


def require_chosen(repository: Path, spec: ModelSpec) -> Chosen:
    """As `read_chosen`. Raises RepositoryError where there is no config, too."""
    chosen = read_chosen(repository, spec)
    if chosen is None:
        raise RepositoryError(f"{repository} has no config of {spec.name}: clipserve export {spec.name} makes it")
    return chosen


def _read_chosen(repository: Path, spec: ModelSpec, decode: pb.ModelConfig) -> Chosen | None:
    try:
        net = read_config(repository, spec.net_name)
    except (OSError, text_format.ParseError):
        return None
    ensemble = _read_or_empty(repository, spec.name)
    formats = [form for form in FORMATS.values() if form.backend == net.backend]
    scores = [output.dims[0] for output in net.output if output.name == "SCORES" and output.dims]
    if not formats or not scores:
        return None
    found = read_contract(ensemble) or spec.contract
    # The clip and the features are facts of the model; the rest depends on the weights.
    weights = {name: getattr(found, name) for name in WEIGHTS_FIELDS}
    return Chosen(
        form=formats[0],
        contract=replace(spec.contract, **weights | {"classes": scores[0]}),
        serving=read_serving(spec, net, ensemble, decode),
    )


def find_drift(repository: Path, *, every_model: bool | None = None) -> list[str]:
    """A unified diff for each file of `repository` that differs from its expected text.

    every_model: whether a model without configs has drifted, too. None: only in the checkout's own repository, whose
        configs of every model are committed.
    """
    if every_model is None:
        every_model = repository.resolve() == CHECKOUT_REPOSITORY.resolve()
    absent = set() if every_model else _find_absent(repository)
    diffs = []
    for path, wanted in expected_files(repository).items():
        if path.parts[0] in absent:
            continue
        there = repository / path
        found = there.read_text() if there.exists() else ""
        if found != wanted or not there.exists():
            lines = difflib.unified_diff(
                found.splitlines(True),
                wanted.splitlines(True),
                f"{there} (found)",
                f"{path} (expected)",
            )
            diffs.append("".join(lines) or f"{there} is missing\n")
    return diffs


def _find_absent(repository: Path) -> set[str]:
    """The folders of the models that have no config in `repository`."""
    pairs = [(spec.name, spec.net_name) for spec in read_specs(repository).values()]
    return {name for pair in pairs if not any((repository / name / CONFIG).exists() for name in pair) for name in pair}


def write_configs(repository: Path) -> list[Path]:
    """Write the configs of every model, and the code of the Python models. Returns the files written.

    Raises RepositoryError where they cannot be written.
    """
    with explain_write_errors(repository), locked(repository):
        return replace_texts(repository, code_texts() | expected_files(repository))


def code_texts() -> dict[Path, str]:
    """The code of the decode step and of timelines, by its paths in a repository. In the checkout's own it lies there.

    Whoever writes it leaves a file alone that has this text, because a server may be running the code.
    """
    from_checkout = all(folder.is_dir() for folder in CHECKOUT_CODE.values())
    return {
        place / path.relative_to(folder): path.read_text()
        for place, folder in (CHECKOUT_CODE if from_checkout else WHEEL_CODE).items()
        for path in sorted(folder.rglob("*.py"))
    }


def write_serving(
    repository: Path, spec: ModelSpec, serving: Serving, *, contract: ClipContract | None = None
) -> list[Path]:
    """Change nothing but the serving options in a model's configs. Returns the files written.

    The caller holds the lock of the repository, since before it read the options that `serving` changes.

    contract: of the version that answers then; None: as it is.

    Raises RepositoryError.
    """
    chosen = require_chosen(repository, spec)
    chosen = replace(chosen, serving=serving, contract=contract or chosen.contract)
    with explain_write_errors(repository):
        return replace_texts(repository, model_configs(repository, spec, chosen))


def read_config(repository: Path, model: str) -> pb.ModelConfig:
    """The config of `model` in `repository`. Raises OSError or text_format.ParseError."""
    return parse_config((repository / model / CONFIG).read_text())


def _read_or_empty(repository: Path, model: str) -> pb.ModelConfig:
    try:
        return read_config(repository, model)
    except (OSError, text_format.ParseError):
        return pb.ModelConfig()


def _read_shared(repository: Path, model: str) -> pb.ModelConfig:
    """The config of the decode step or of timelines, which operators edit. Empty if there is no file.

    Raises RepositoryError where it cannot be read: what an operator has set there would be lost.
    """
    path = repository / model / CONFIG
    try:
        return read_config(repository, model)
    except FileNotFoundError:
        return pb.ModelConfig()
    except OSError as error:
        raise RepositoryError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, text_format.ParseError) as error:
        # The text of a ParseError begins with the line and the column.
        place = "line " if isinstance(error, text_format.ParseError) and error.GetLine() else ""
        raise RepositoryError(
            f"{path} is no valid config ({place}{error}): correct it, or remove the file, and clipserve export"
            " --configs makes it again, without what was set there by hand"
        ) from error
