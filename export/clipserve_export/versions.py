"""The versions of a network: which are published, which of them a server loads, and what they must have in common.

All versions of a network share one config and one label file. So they have one backend and the same classes; what a
version may change is the weights and, without TensorRT, the precision.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from clipserve_export.errors import VersionError
from clipserve_export.formats import Format
from clipserve_export.repository import LABELS, RECORD, label_text, read_chosen, write_serving
from clipserve_export.serving import Serving, choose_versions, parse_keep
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision


@dataclass(frozen=True, kw_only=True)
class PublishedVersion:
    """A version folder, and what its export.json tells."""

    number: int
    loaded: bool  # by a server that reads the config as it is
    answers: bool  # the newest of those: the one behind the public name
    record: dict[str, Any]  # {} where there is none


def published_numbers(repository: Path, spec: ModelSpec) -> list[int]:
    """The numbers of the versions there are, ascending."""
    folders = (repository / spec.net_name).glob("[1-9]*")
    return sorted(int(folder.name) for folder in folders if folder.name.isdigit() and any(folder.iterdir()))


def read_record(repository: Path, spec: ModelSpec, number: int) -> dict[str, Any]:
    """The export.json of a version; {} where there is none."""
    try:
        record = json.loads((repository / spec.net_name / str(number) / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_versions(repository: Path, spec: ModelSpec) -> list[PublishedVersion]:
    """Every version of a model, ascending."""
    numbers, chosen = published_numbers(repository, spec), read_chosen(repository, spec)
    loaded = choose_versions(chosen.serving.keep, numbers) if chosen else []
    return [
        PublishedVersion(
            number=number,
            loaded=number in loaded,
            answers=number == max(loaded, default=0),
            record=read_record(repository, spec, number),
        )
        for number in numbers
    ]


def serve_versions(repository: Path, spec: ModelSpec, keep: str) -> str:
    """Have servers load these versions when they next look; gives the policy in its one spelling.

    One small file is replaced in one rename, so a server reads the old policy or the new one.

    Raises:
        ServingError: `keep` is no version policy.
        VersionError: a version that it names is not there, or none is.
    """
    keep = parse_keep(keep)
    chosen, numbers = read_chosen(repository, spec), published_numbers(repository, spec)
    if chosen is None or not numbers:
        raise VersionError(f"{spec.name} has no version in {repository}: clipserve export {spec.name} makes the first")
    require_versions(spec, keep, numbers)
    require_versions(spec, keep, numbers)
    write_serving(repository, spec, replace(chosen.serving, keep=keep))
    return keep


def require_versions(spec: ModelSpec, keep: str, numbers: Sequence[int]) -> None:
    """Raise VersionError where a policy names a version that is not among `numbers`: Triton would load none."""
    named = [] if keep == "all" or keep.startswith("latest") else list(map(int, keep.split(",")))
    if missing := sorted(set(named) - set(numbers)):
        raise VersionError(
            f"{spec.name} has no version {missing[0]}; there are {', '.join(map(str, numbers)) or 'none yet'}:"
            f" clipserve export {spec.name} --version {missing[0]} makes it"
        )


def require_fellowship(
    repository: Path, spec: ModelSpec, version: int, *, form: Format, labels: Sequence[str], serving: Serving
) -> None:
    """Raise VersionError unless a network can go in as `version` beside the other versions that are there."""
    others = [number for number in published_numbers(repository, spec) if number != version]
    if not others:
        return
    net = repository / spec.net_name
    for number in others:
        if not (net / str(number) / form.filename).exists():
            raise VersionError(
                f"version {number} of {spec.name} is not {form.name}, and all versions share one config with one"
                f" backend: export version {version} in the format of the others, or publish in another --repository"
            )
    if (net / LABELS).exists() and (net / LABELS).read_text() != label_text(labels):
        raise VersionError(
            f"{net / LABELS} names other classes than this network has, and it is also that of version"
            f" {', '.join(map(str, others))}: publish in another --repository, or remove those versions first"
        )
    require_engines(repository, spec, others, serving)


def require_engines(repository: Path, spec: ModelSpec, numbers: Sequence[int], serving: Serving) -> None:
    """Raise VersionError where TensorRT could take one version's engine for another's, or round one unchecked."""
    if serving.accelerator != "tensorrt":
        return
    for number in numbers:
        record = read_record(repository, spec, number)
        if not record.get("tensor_suffix"):
            raise VersionError(
                f"version {number} of {spec.name} was exported before its tensors carried names of their own, by which"
                f" TensorRT's engines are told apart: export it anew with --version {number}"
            )
        if record.get("precision") != serving.precision:
            raise VersionError(
                f"version {number} of {spec.name} is {record.get('precision')}, and TensorRT would run it in"
                f" {serving.precision}, which is for all versions: export them in one --precision"
            )


def written_precision(repository: Path, spec: ModelSpec) -> Precision:
    """What the newest version was written in; fp32 where nothing tells."""
    numbers = published_numbers(repository, spec)
    found = read_record(repository, spec, numbers[-1]).get("precision") if numbers else None
    return next((precision for precision in get_args(Precision) if precision == found), "fp32")


def explain_publication(repository: Path, spec: ModelSpec, number: int) -> list[str]:
    """What somebody who has just published this version should know."""
    chosen = read_chosen(repository, spec)
    (version,) = (version for version in read_versions(repository, spec) if version.number == number)
    words = []
    if chosen and not version.answers:
        words.append(
            f"version {number} does not answer, by the version policy {chosen.serving.keep}:"
            f" clipserve versions {spec.name} --serve {number}"
        )
    if chosen and chosen.serving.cache:
        words.append(
            f"a response cache knows versions, not weights: restart a server that has answered from version {number}"
            " before, or publish under a new --version"
        )
    return words
