"""The models of a repository, read from its configs without protobuf, which Triton's container does not have.

`clipserve export` writes the configs (google.protobuf.text_format), so a few patterns can read them. Triton reports any
other error in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PLATFORM = re.compile(r'^platform: "ensemble"', re.MULTILINE)
_STEP = re.compile(r'^\s+model_name: "([^"]+)"', re.MULTILINE)
_PARAMETER = re.compile(
    r'^parameters \{\s*key: "(?P<key>[^"]+)"\s*value \{\s*string_value: "(?P<value>(?:[^"\\]|\\.)*)"\s*\}\s*\}',
    re.MULTILINE,
)
_OPENVINO = re.compile(r'cpu_execution_accelerator \{\s*name: "openvino"')


# Answers long videos window by window, with any of the networks. No public model of its own.
TIMELINE = "timeline"


class RepositoryError(Exception):
    """The repository cannot be served."""


@dataclass(frozen=True)
class PublicModel:
    """An ensemble, and the models it calls."""

    name: str
    steps: tuple[str, ...]


def read_models(repository: Path) -> dict[str, PublicModel]:
    """Every ensemble by name, exported or not. Raises RepositoryError."""
    if not repository.is_dir():
        raise RepositoryError(
            f"there is no model repository {repository}: CLIPSERVE_REPOSITORY names the folder of the host to mount"
        )
    models = {}
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            config = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(f"{path} cannot be read: {error}") from error
        if _PLATFORM.search(config):
            steps = tuple(dict.fromkeys(_STEP.findall(config)))
            models[path.parent.name] = PublicModel(path.parent.name, steps)
    return models


def choose_models(repository: Path, names: tuple[str, ...] = ()) -> list[PublicModel]:
    """The models to serve: the named ones, or all that are exported. Raises RepositoryError when there is none."""
    models = read_models(repository)
    unknown = [name for name in names if name not in models]
    if unknown:
        raise RepositoryError(
            f"CLIPSERVE_MODELS names {unknown[0]!r}, but the repository has {', '.join(models) or 'no model'}"
        )
    chosen = [models[name] for name in names] or list(models.values())
    unexported = [model.name for model in chosen if not is_exported(repository, model)]
    servable = [model for model in chosen if model.name not in unexported]
    if names and unexported:
        raise RepositoryError(
            f"{unexported[0]} is not exported yet: docker compose run --rm export {' '.join(unexported)}"
        )
    if not servable:
        raise RepositoryError(
            "the model repository is empty: docker compose run --rm export NAME..."
            + (f", with any of {', '.join(models)}" if models else " (and check that it is the right folder)")
        )
    return servable


def is_exported(repository: Path, model: PublicModel) -> bool:
    """Whether every step has a version that is not empty."""
    return all(
        any(version.name.isdigit() and any(version.iterdir()) for version in (repository / step).glob("[1-9]*"))
        for step in model.steps
    )


def names_to_load(models: list[PublicModel]) -> list[str]:
    """Each model once, and the steps first: an ensemble is loaded after the models that it calls."""
    return list(dict.fromkeys([step for model in models for step in model.steps] + [model.name for model in models]))


def names_to_serve(repository: Path, models: list[PublicModel]) -> list[str]:
    """The same, and the model that makes timelines, which repositories of older exports do not have."""
    has_timeline = all((repository / TIMELINE / file).is_file() for file in ("config.pbtxt", "1/model.py"))
    return names_to_load(models) + ([TIMELINE] if has_timeline else [])


def read_parameters(repository: Path, model: str) -> dict[str, str]:
    """The parameters of a model's config."""
    config = (repository / model / "config.pbtxt").read_text()
    return {
        match["key"]: match["value"].replace('\\"', '"').replace("\\\\", "\\") for match in _PARAMETER.finditer(config)
    }


def names_openvino(repository: Path, model: str) -> bool:
    """Whether a model's config names OpenVINO for CPUs."""
    return bool(_OPENVINO.search((repository / model / "config.pbtxt").read_text()))
