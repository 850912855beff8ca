"""Sample videos and an embedded server, for a load test without --url and --videos."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipserve.loadtest.load_levels import LoadTestError
from clipserve.loadtest.perf_analyzer import cache_folder
from clipserve.loadtest.server import Server

SEED = 7_300_000  # not a seed of the training videos


def write_sample_videos(folder: Path) -> Path:
    """Generate a video of each class of the model `motion`, in varying forms. Raises LoadTestError."""
    try:
        from clipserve_export.motion import videos
    except ModuleNotFoundError as error:
        raise LoadTestError(
            f"sample videos cannot be generated without {error.name}: name a folder with --videos,"
            " or pip install 'clipserve[export]'"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        videos.write_sample_videos(folder, SEED)
    except OSError as error:
        raise LoadTestError(
            f"user {os.getuid()} cannot write sample videos into {folder}: {error.strerror}; give another folder as"
            " --out, or your own videos as --videos"
        ) from error
    return folder


@contextmanager
def embedded_server(model: str, repository: Path | None, *, cpu_precision: str) -> Iterator[Server]:
    """Start a Triton on this machine with this one model. Without a repository, export the model first.

    Raises:
        LoadTestError: the packages are not installed, the model is unknown, or the server does not start.
    """
    try:
        from clipserve_server.errors import ServerStartError
        from clipserve_server.triton import Triton
    except ModuleNotFoundError as error:
        raise LoadTestError(
            f"no server can be started here without {error.name}: name a running server with --url,"
            " or pip install 'clipserve[server]'"
        ) from error
    try:
        triton = Triton(
            repository or export_sample(model),
            models=[model],
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            cpu_precision=cpu_precision,
        )
        triton.start()
    except ServerStartError as error:
        raise LoadTestError(f"the server does not start: {error}") from error
    try:
        yield Server(triton.grpc_url, model, metrics_url=triton.metrics_url)
    finally:
        triton.stop()


def export_sample(model: str) -> Path:
    """Export the model into a repository in the cache, unless the same code did so before. Raises LoadTestError."""
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.exporting import export_network
        from clipserve_export.repository import write_configs
        from clipserve_export.sources import PublishedSource
        from clipserve_export.specs import SPECS
        from clipserve_export.weights import offline_weights
    except ModuleNotFoundError as error:
        raise LoadTestError(
            f"{model} cannot be exported without {error.name}: name a repository with --repository,"
            " or pip install 'clipserve[export]'"
        ) from error
    if model not in SPECS:
        raise LoadTestError(f"there is no model {model!r}; --model must be one of {', '.join(SPECS)}")
    spec, repository = SPECS[model], cache_folder() / "loadtest" / "model_repository"
    try:
        write_configs(repository)
        export_network(
            PublishedSource(spec, offline_weights(spec)),  # the speed does not depend on the weights
            format_name="onnx",
            repository=repository,
            reuse=True,
        )
    except ExportError as error:
        raise LoadTestError(
            f"{model} cannot be exported: {error}. Name a repository with --repository, or set XDG_CACHE_HOME to a"
            " folder that can be written"
        ) from error
    return repository
