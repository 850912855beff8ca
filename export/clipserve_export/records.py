"""What exports have written beside the files of the published versions of a network."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clipserve.contract import ClipContract
from clipserve_export.errors import RepositoryError
from clipserve_export.serving.choices import choose_versions
from clipserve_export.specs import OWN, ModelSpec

RECORD, CONTRACT = "export.json", "contract.json"


def published_numbers(repository: Path, spec: ModelSpec) -> list[int]:
    """The numbers of the published versions, ascending. Raises RepositoryError for a folder that cannot be read."""
    folders = (repository / spec.net_name).glob("[1-9]*")
    try:
        return sorted(int(folder.name) for folder in folders if folder.name.isdecimal() and any(folder.iterdir()))
    except OSError as error:
        raise RepositoryError(
            f"{error.filename} cannot be read: {error.strerror}; make it a folder that this user can read"
        ) from error


def read_record(folder: Path) -> dict[str, Any]:
    """The export.json of a version's folder; {} if it has none."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_records(repository: Path, spec: ModelSpec) -> dict[int, dict[str, Any]]:
    """The export.json of every published version by its number, ascending; {} for one that has none."""
    net = repository / spec.net_name
    return {number: read_record(net / str(number)) for number in published_numbers(repository, spec)}


def read_version_contract(repository: Path, spec: ModelSpec, number: int) -> ClipContract | None:
    """The contract.json of a version; None if it has none that can be read."""
    try:
        return ClipContract.from_json((repository / spec.net_name / str(number) / CONTRACT).read_text())
    except (OSError, TypeError, ValueError):
        return None


def find_lacking_openvino(records: Mapping[int, Mapping[str, Any]], keep: str) -> list[int]:
    """The versions that a server loads under the policy `keep` and OpenVINO does not run, by their records."""
    return [number for number in choose_versions(keep, list(records)) if records[number].get("openvino") is False]


def fit_spec(spec: ModelSpec, records: Mapping[int, Mapping[str, Any]], keep: str) -> ModelSpec:
    """`spec` with what a clip takes in that loaded version which takes most. Those of an own network may differ.

    Records of older exports do not say it.
    """
    loaded = [records[number].get("clip_megabytes") for number in choose_versions(keep, list(records))]
    megabytes = [value for value in loaded if isinstance(value, int) and spec.family == OWN]
    return replace(spec, clip_megabytes=max(megabytes)) if megabytes else spec
