"""The versions of a network: which are published, which of them a server loads, and what they must have in common.

All versions of a network share one config and one label file. So they have the same backend and classes, take the same
clips, and have features of one size. Their weights may differ and, without TensorRT, their precision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve.connection import Tls, check_headers, choose_channel_options
from clipserve.contract import ClipContract
from clipserve_export.access import explain_write_errors, locked
from clipserve_export.configs import DECODE, TIMELINE
from clipserve_export.errors import RepositoryError, VersionError
from clipserve_export.formats import Format
from clipserve_export.records import (
    find_lacking_openvino,
    published_numbers,
    read_record,
    read_records,
    read_version_contract,
)
from clipserve_export.repository import LABELS, VERSION, label_text, read_chosen, write_serving
from clipserve_export.serving.choices import Serving, choose_versions, parse_keep
from clipserve_export.specs import ModelSpec
from clipserve_export.target import Precision

# Of a contract: what the one config of all versions says.
SHARED_FIELDS = ("frames", "stride", "short_side", "crop", "feature_size")
LOAD_SECONDS = 600.0  # TensorRT builds engines when it loads a model


@dataclass(frozen=True, kw_only=True)
class PublishedVersion:
    """A version of a network.

    Attributes:
        number: of the version folder.
        loaded: whether a server with this config loads it.
        answers: whether it is the newest loaded one, which answers for the public model.
        record: its export.json; {} if it has none.
    """

    number: int
    loaded: bool
    answers: bool
    record: dict[str, Any]


def choose_number(repository: Path, spec: ModelSpec, wanted: int | Literal["next"] | None) -> int:
    """The number of the version to publish. None: the newest, or 1. "next": one that no version has."""
    if isinstance(wanted, int):
        return wanted
    newest = max(published_numbers(repository, spec), default=0)
    return newest + 1 if wanted == "next" else newest or int(VERSION)


def answering_contract(
    repository: Path, spec: ModelSpec, keep: str, number: int, contract: ClipContract
) -> ClipContract:
    """The contract that clients are told once version `number`, which has `contract`, is published."""
    answering = max(choose_versions(keep, [*published_numbers(repository, spec), number]), default=number)
    return contract if answering == number else read_version_contract(repository, spec, answering) or contract


def read_versions(repository: Path, spec: ModelSpec) -> list[PublishedVersion]:
    """Every version of a model, ascending."""
    records, chosen = read_records(repository, spec), read_chosen(repository, spec)
    loaded = choose_versions(chosen.serving.keep, list(records)) if chosen else []
    return [
        PublishedVersion(
            number=number,
            loaded=number in loaded,
            answers=number == max(loaded, default=0),
            record=record,
        )
        for number, record in records.items()
    ]


def explain_openvino(repository: Path, spec: ModelSpec) -> list[str]:
    """A note about the versions that OpenVINO does not run, if there are any."""
    chosen = read_chosen(repository, spec)
    lacking = find_lacking_openvino(read_records(repository, spec), chosen.serving.keep) if chosen else []
    if not lacking:
        return []
    return [
        f"OpenVINO does not run version {', '.join(map(str, lacking))}, because it lacks an operator or gives other"
        " answers: on CPUs the model runs in ONNX Runtime, which is slower"
    ]


def serve_versions(repository: Path, spec: ModelSpec, keep: str) -> str:
    """Set the versions that servers load when they next read the config. Returns the policy, normalised.

    The config is replaced atomically, so a server reads the old policy or the new one.

    Raises:
        ServingError: `keep` is no version policy.
        VersionError: a named version does not exist, or there is none at all.
        RepositoryError: a config cannot be read or written.
    """
    keep = parse_keep(keep)
    absent = VersionError(f"{spec.name} has no version in {repository}: clipserve export {spec.name} makes the first")
    if not repository.is_dir():  # the lock would make it
        raise absent
    with explain_write_errors(repository), locked(repository):
        chosen, numbers = read_chosen(repository, spec), published_numbers(repository, spec)
        if chosen is None or not numbers:
            raise absent
        require_versions(spec, keep, numbers)
        answering = max(choose_versions(keep, numbers), default=numbers[-1])
        contract = read_version_contract(repository, spec, answering)
        write_serving(repository, spec, replace(chosen.serving, keep=keep), contract=contract)
    return keep


def require_versions(spec: ModelSpec, keep: str, numbers: Sequence[int]) -> None:
    """Raise VersionError when a policy names a version that is not among `numbers`: Triton would load none."""
    named = [] if keep == "all" or keep.startswith("latest") else list(map(int, keep.split(",")))
    if missing := sorted(set(named) - set(numbers)):
        raise VersionError(
            f"{spec.name} has no version {missing[0]}; there are {', '.join(map(str, numbers)) or 'none yet'}:"
            f" publish it first, with --version {missing[0]} of export, adopt or fit"
        )


def require_compatible(
    repository: Path, spec: ModelSpec, version: int, *, form: Format, labels: Sequence[str], serving: Serving
) -> None:
    """Raise VersionError unless a network can become `version` beside the other versions."""
    others = [number for number in published_numbers(repository, spec) if number != version]
    if not others:
        return
    net = repository / spec.net_name
    for number in others:
        # A file of the format that the version had before may lie there, with other weights.
        written = read_record(net / str(number)).get("format", form.name)
        if written != form.name or not (net / str(number) / form.filename).exists():
            raise VersionError(
                f"version {number} of {spec.name} is not {form.name}, and all versions share one config with one"
                f" backend: export version {version} in the format of the others, or publish in another --repository"
            )
    for number in others:
        require_same_clips(repository, spec, number)
    if (net / LABELS).exists() and (there := (net / LABELS).read_text()) != label_text(labels):
        raise VersionError(
            f"{net / LABELS} names other classes than this network has{describe_first(there.splitlines(), labels)}, and"
            f" it is also that of version {', '.join(map(str, others))}: publish in another --repository, or remove"
            " those versions first"
        )
    require_engines(repository, spec, others, serving)


def describe_first(there: Sequence[str], labels: Sequence[str]) -> str:
    """The first class in which two lists differ, for a message."""
    for number, (old, new) in enumerate(zip_longest(there, label_text(labels).splitlines())):
        if old != new:
            return f" (class {number} is {old!r} there, and {new!r} here)" if old and new else " (another number)"
    return ""


def require_same_clips(repository: Path, spec: ModelSpec, number: int) -> None:
    """Raise VersionError where version `number` takes other clips than `spec`, or has another embedding."""
    there = read_version_contract(repository, spec, number)
    for name in SHARED_FIELDS:
        if there and getattr(there, name) != getattr(spec.contract, name):
            raise VersionError(
                f"version {number} of {spec.name} has {name} = {getattr(there, name)}, and this network"
                f" {getattr(spec.contract, name)}: all versions share one config. Publish it under another --name, or"
                f" remove {repository / spec.net_name / str(number)} first"
            )


def require_engines(repository: Path, spec: ModelSpec, numbers: Sequence[int], serving: Serving) -> None:
    """Raise VersionError when TensorRT could use the engine of another version, or round a version without a check."""
    if serving.accelerator != "tensorrt":
        return
    records = read_records(repository, spec)
    for number in numbers:
        record = records[number]
        if not record.get("tensor_suffix"):
            raise VersionError(
                f"an older clipserve exported version {number} of {spec.name}, without the tensor names that TensorRT"
                f" needs to keep the engines of versions apart: export it again with --version {number}"
            )
        if record.get("precision") != serving.precision:
            raise VersionError(
                f"version {number} of {spec.name} is {record.get('precision')}, and TensorRT would run it in"
                f" {serving.precision}, which is for all versions: export them in one --precision"
            )


def written_precision(repository: Path, spec: ModelSpec) -> Precision:
    """The precision of the newest version; fp32 if it has no record."""
    records = list(read_records(repository, spec).values())
    found = records[-1].get("precision") if records else None
    return next((precision for precision in get_args(Precision) if precision == found), "fp32")


def explain_publication(repository: Path, spec: ModelSpec, number: int) -> list[str]:
    """Notes for the person who has just published this version."""
    chosen = read_chosen(repository, spec)
    # For an instant there is none while another program replaces it.
    version = next((version for version in read_versions(repository, spec) if version.number == number), None)
    notes = []
    if chosen and version and not version.answers:
        notes.append(
            f"version {number} does not answer, by the version policy {chosen.serving.keep}:"
            f" clipserve versions {spec.name} --serve {number}"
        )
    if chosen and chosen.serving.cache:
        notes.append(
            f"a response cache knows versions, not weights: restart a server that has answered from version {number}"
            " before, or publish under a new --version"
        )
    return notes + explain_openvino(repository, spec)


def reload_model(
    spec: ModelSpec, url: str, *, tls: Tls | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Let the server at `url` (host:port of gRPC) reload the network and its ensemble from its repository.

    The old version answers until Triton has loaded the new one. If that fails, the old version stays. Timelines are
    reloaded as well, and the decode step where it does not know the model's clips yet.

    tls: how to encrypt; None: not at all.
    headers: sent with every call, such as a key.

    Raises:
        InvalidRequest: a file of `tls` cannot be read, or a header cannot be sent.
        RepositoryError: no server answers there, it does not allow control of its repository, or it cannot load.
    """
    headers = check_headers("headers", headers or {})
    try:
        credentials = tls.credentials() if tls else None
        with triton_grpc.InferenceServerClient(
            url, creds=credentials, channel_args=choose_channel_options(url)
        ) as client:
            for name in (*_find_shared(client, spec, headers), spec.net_name, spec.name):
                client.load_model(name, headers=headers, client_timeout=LOAD_SECONDS)
    except InferenceServerException as error:
        raise RepositoryError(f"{url} could not reload {spec.name}: {error.message()}") from error


def _find_shared(client: triton_grpc.InferenceServerClient, spec: ModelSpec, headers: Mapping[str, str]) -> list[str]:
    """Which of the shared models must be reloaded with this one.

    The decode step, if it lacks the model's clips. Timelines always, because their config repeats options of the model:
    the shape of its clips, and how many share a run. Triton leaves a model alone whose files have not changed.
    """
    names = [name for name in (DECODE, TIMELINE) if client.is_model_ready(name, headers=headers)]
    if DECODE in names:
        parameters = client.get_model_config(DECODE, headers=headers).config.parameters
        if spec.geometry.output_name in parameters:
            names.remove(DECODE)
    return names
