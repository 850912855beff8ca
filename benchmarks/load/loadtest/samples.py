"""Videos and a server for a laptop: generated motions, and the embedded Triton."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.server import Server

ROOT = Path(__file__).parents[3]
REPOSITORY = ROOT / ".cache" / "test-repositories" / "onnx"
SEED = 7_300_000
# As in examples/demo.py: phones, web, old cameras.
FORMS = (
    ("mp4", 320, 240, 30, "libx264"),
    ("mp4", 270, 480, 25, "libx264"),
    ("webm", 480, 270, 24, "libvpx-vp9"),
    ("mkv", 256, 256, 15, "libx264"),
    ("avi", 320, 240, 12, "mpeg4"),
)


def write_samples(folder: Path) -> Path:
    """A video of each motion that the model `motion` knows, in varying forms. Raises LoadTestError."""
    try:
        from clipserve_export.motion.scenes import LABELS
        from clipserve_export.motion.videos import write_motion_video
    except ModuleNotFoundError as error:
        raise LoadTestError(
            f"without {error.name} no videos can be generated; --videos names a folder of yours"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(LABELS):
        suffix, width, height, fps, codec = FORMS[number % len(FORMS)]
        path = folder / f"{label.replace(' ', '_')}.{suffix}"
        write_motion_video(path, label, SEED + number, width=width, height=height, fps=fps, codec=codec)
    return folder


@contextmanager
def embedded_server(model: str, repository: Path | None, *, cpu_precision: str) -> Iterator[Server]:
    """A Triton on this machine with this one model, exported if need be. Raises LoadTestError."""
    try:
        from clipserve_server.errors import ServerStartError
        from clipserve_server.triton import Triton
    except ModuleNotFoundError as error:
        raise LoadTestError(
            f"without {error.name} there is no server to start here; --url names a running one"
        ) from error
    if repository is None:
        export_sample(model)
    try:
        triton = Triton(
            repository or REPOSITORY,
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


def export_sample(model: str) -> None:
    """Into the repository of the tests, which keeps what was exported. Raises LoadTestError."""
    from clipserve_export.exporting import export_model
    from clipserve_export.repository import write_configs
    from clipserve_export.specs import SPECS

    if model not in SPECS:
        raise LoadTestError(f"there is no model {model!r}; --model is one of {', '.join(SPECS)}")
    spec = SPECS[model]
    # How long a network takes does not depend on its weights; only `motion` brings its own.
    source = "pretrained" if spec.family == "motion" else "random"
    write_configs(REPOSITORY)
    export_model(spec, format_name="onnx", weights_source=source, labels_file=None, repository=REPOSITORY, reuse=True)
