"""The models of a repository, read from its configs."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_server.errors import RepositoryEmpty

# Answers long videos window by window, with any of the networks. No public model of its own.
TIMELINE = "timeline"


@dataclass(frozen=True)
class ServedModel:
    """A public model and the models its ensemble calls."""

    name: str
    steps: tuple[str, ...]


@contextmanager
def _explain_unreadable() -> Iterator[None]:
    """Raises RepositoryEmpty where the system does not let this user read the repository."""
    try:
        yield
    except OSError as error:
        raise RepositoryEmpty(
            f"{error.filename} cannot be read by user {os.getuid()}: {error.strerror}; make it one that this user can"
            " read"
        ) from error


@_explain_unreadable()
def read_repository(repository: Path) -> dict[str, ServedModel]:
    """Every public model of the repository, exported or not, by name.

    Raises RepositoryEmpty, also when a config cannot be read.
    """
    if not repository.is_dir():
        raise RepositoryEmpty(
            f"there is no model repository {repository}: name one (--repository), or make it: clipserve export"
        )
    models = {}
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            config = text_format.Parse(path.read_text(), pb.ModelConfig())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise RepositoryEmpty(f"{path} is not a Triton config: {error}") from error
        if config.platform == "ensemble":
            steps = tuple(step.model_name for step in config.ensemble_scheduling.step)
            models[path.parent.name] = ServedModel(path.parent.name, steps)
    if not models:
        raise RepositoryEmpty(f"{repository} has no models: export some with `clipserve export`")
    return models


@_explain_unreadable()
def choose_models(repository: Path, names: Sequence[str] = ()) -> list[ServedModel]:
    """The models to serve: the named ones, or every model whose steps all have a version on disk.

    Raises RepositoryEmpty when a named model is unknown or not exported, when no model is exported, or when a file or a
    folder cannot be read.
    """
    models = read_repository(repository)
    unknown = [name for name in names if name not in models]
    if unknown:
        raise RepositoryEmpty(f"{repository} has no model {unknown[0]!r}; it has {', '.join(models)}")
    chosen = [models[name] for name in dict.fromkeys(names)] or list(models.values())
    unexported = [model.name for model in chosen if not _is_exported(repository, model)]
    if names and unexported:
        raise RepositoryEmpty(f"{unexported[0]} is not exported yet: clipserve export {' '.join(unexported)}")
    servable = [model for model in chosen if model.name not in unexported]
    if not servable:
        raise RepositoryEmpty(
            f"no model of {repository} is exported yet: clipserve export NAME, with any of {', '.join(models)}"
        )
    return servable


@_explain_unreadable()
def has_timeline(repository: Path) -> bool:
    """Whether the repository has the model that makes timelines; those of older exports do not. Raises RepositoryEmpty
    where it cannot be read.
    """
    return all((repository / TIMELINE / file).is_file() for file in ("config.pbtxt", "1/model.py"))


def _is_exported(repository: Path, model: ServedModel) -> bool:
    return all(
        any(version.name.isdigit() and any(version.iterdir()) for version in (repository / step).glob("[1-9]*"))
        for step in model.steps
    )
