"""What a model repository offers, read from its configs without protobuf, which Triton's container does not have.

The configs are the ones `clipserve export` writes (google.protobuf.text_format), so a few patterns read them; anything
that Triton would refuse it will refuse itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

# Of one video, where the decode step's config sets no other bound.
MOST_CLIPS = 30
_PLATFORM = re.compile(r'^platform: "ensemble"', re.MULTILINE)
_STEP = re.compile(r'^\s+model_name: "([^"]+)"', re.MULTILINE)
_PARAMETER = re.compile(
    r'^parameters \{\s*key: "(?P<key>[^"]+)"\s*value \{\s*string_value: "(?P<value>(?:[^"\\]|\\.)*)"\s*\}\s*\}',
    re.MULTILINE,
)


_OPENVINO = re.compile(r'cpu_execution_accelerator \{\s*name: "openvino"')
_MAX_BATCH = re.compile(r"^max_batch_size: (\d+)", re.MULTILINE)


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
    """The models to serve: those named, or all that are exported. Raises RepositoryError when there is none."""
    models = read_models(repository)
    unknown = [name for name in names if name not in models]
    if unknown:
        raise RepositoryError(
            f"CLIPSERVE_MODELS names {unknown[0]!r}, but the repository has {', '.join(models) or 'no model'}"
        )
    chosen = [models[name] for name in names] or list(models.values())
    lacking = [model.name for model in chosen if not is_exported(repository, model)]
    servable = [model for model in chosen if model.name not in lacking]
    if names and lacking:
        raise RepositoryError(f"{lacking[0]} is not exported yet: docker compose run --rm export {' '.join(lacking)}")
    if not servable:
        raise RepositoryError(
            "the model repository is empty: docker compose run --rm export NAME..."
            + (f", with any of {', '.join(models)}" if models else " (and check that it is the right folder)")
        )
    return servable


def is_exported(repository: Path, model: PublicModel) -> bool:
    """Whether every step has a version with something in it."""
    return all(
        any(version.name.isdigit() and any(version.iterdir()) for version in (repository / step).glob("[1-9]*"))
        for step in model.steps
    )


def names_to_load(models: list[PublicModel]) -> list[str]:
    """Steps first, each once: an ensemble is loaded after what it calls."""
    return list(dict.fromkeys([step for model in models for step in model.steps] + [model.name for model in models]))


def read_parameters(repository: Path, model: str) -> dict[str, str]:
    """The `parameters` of a model's config."""
    config = (repository / model / "config.pbtxt").read_text()
    return {
        match["key"]: match["value"].replace('\\"', '"').replace("\\\\", "\\") for match in _PARAMETER.finditer(config)
    }


def largest_clip_bytes(repository: Path) -> int:
    """Bytes of the largest clip of one view that the decode step makes: frames x crop x crop x 3."""
    clips = [
        json.loads(value) for name, value in read_parameters(repository, "decode").items() if name.startswith("CLIP_")
    ]
    return max((clip["frames"] * clip["crop"] ** 2 * 3 for clip in clips), default=0)


def names_openvino(repository: Path, model: str) -> bool:
    """Whether a model's config asks for OpenVINO on CPUs."""
    return bool(_OPENVINO.search((repository / model / "config.pbtxt").read_text()))


@dataclass(frozen=True)
class LargestRun:
    """What a network may be handed at once."""

    network: str
    videos: int
    clips: int  # of one video
    clip_megabytes: int  # of memory that one clip more takes

    @property
    def megabytes(self) -> int:
        """Of memory that a run takes."""
        return self.videos * self.clips * self.clip_megabytes

    @property
    def megabytes_of_all_shapes(self) -> int:
        """Of memory, where what a run took is kept for each number of videos and clips."""
        videos, clips = (most * (most + 1) // 2 for most in (self.videos, self.clips))
        return videos * clips * self.clip_megabytes


def largest_runs(repository: Path, models: list[PublicModel]) -> list[LargestRun]:
    """Of every network of `models`, by what the configs allow: max_batch_size, and MAX_CLIP_... of the decode step."""
    decode = read_parameters(repository, "decode")
    runs = []
    for model in models:
        output = re.search(r'key: "(CLIP_[^"]+)"', (repository / model.name / "config.pbtxt").read_text())
        for step in model.steps:
            megabytes = read_parameters(repository, step).get("clip_megabytes")
            if output and megabytes:
                most = _MAX_BATCH.search((repository / step / "config.pbtxt").read_text())
                clips = int(decode.get(f"MAX_{output[1]}", MOST_CLIPS))
                runs.append(LargestRun(step, int(most[1]) if most else 1, clips, int(megabytes)))
    return runs
