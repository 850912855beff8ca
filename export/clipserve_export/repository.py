"""The model repository on disk: what belongs in it, whether it is so, and how a model gets into it whole."""

import difflib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_export.configs import (
    DECODE,
    decode_config,
    ensemble_config,
    net_config,
    parse_config,
    print_config,
)
from clipserve_export.formats import FORMATS, Format
from clipserve_export.labels import published_labels, read_labels
from clipserve_export.specs import SPECS, ModelSpec
from clipserve_export.weights import PACKAGE

VERSION = "1"
CONFIG, LABELS, RECORD = "config.pbtxt", "labels.txt", "export.json"
# The decode step's code: in the checkout, and in a wheel where the build puts a copy.
DECODE_SOURCES = (
    PACKAGE.parents[1] / "model_repository" / DECODE / VERSION,
    PACKAGE / "decode_step",
)


def label_text(labels: Sequence[str]) -> str:
    """The text of a label file."""
    return "".join(f"{label}\n" for label in labels)


def expected_files(repository: Path) -> dict[Path, str]:
    """Every generated text file, by its path, as the specs would have it.

    The format and the class count of a network are the exporter's choice, so they are read from the file that is there;
    where none is, it is ONNX with the published classes.
    """
    files = {Path(DECODE, CONFIG): print_config(decode_config(SPECS.values()))}
    for spec in SPECS.values():
        labels = read_labels(published_labels(spec))
        form, classes = _chosen(repository / spec.net_name / CONFIG) or (
            FORMATS["onnx"],
            len(labels),
        )
        files[Path(spec.name, CONFIG)] = print_config(ensemble_config(spec, classes=classes))
        files[Path(spec.name, VERSION, ".gitkeep")] = ""  # an ensemble needs a version folder
        files[Path(spec.net_name, CONFIG)] = print_config(net_config(spec, form, classes=classes))
        if classes == len(labels):
            files[Path(spec.net_name, LABELS)] = label_text(labels)
    return files


def _chosen(path: Path) -> tuple[Format, int] | None:
    try:
        config = parse_config(path.read_text())
    except (OSError, text_format.ParseError):
        return None
    formats = [form for form in FORMATS.values() if form.backend == config.backend]
    scores = [output.dims[0] for output in config.output if output.name == "SCORES" and output.dims]
    return (formats[0], scores[0]) if formats and scores else None


def find_drift(repository: Path) -> list[str]:
    """What in `repository` is not as the specs would have it: a unified diff for each such file."""
    diffs = []
    for path, wanted in expected_files(repository).items():
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


def write_configs(repository: Path) -> list[Path]:
    """Write what `find_drift` would complain of, and the decode step's code; gives the files written."""
    written = place_decode(repository)
    for path, wanted in expected_files(repository).items():
        there = repository / path
        if not there.exists() or there.read_text() != wanted:
            replace_text(there, wanted)
            written.append(there)
    return written


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new, never a part.

    One that has this text is left alone: a server that polls loads a model anew when a file of it gets a new time.
    """
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


def place_decode(repository: Path) -> list[Path]:
    """Put the decode step's code into a repository that is not the checkout's own; gives the files written.

    Only what differs is written: a server may be running what is there.
    """
    source = next((path for path in DECODE_SOURCES if path.is_dir()), None)
    target = repository / DECODE / VERSION
    if source is None or source.resolve() == target.resolve():
        return []
    written = []
    for path in sorted(source.rglob("*.py")):
        there, text = target / path.relative_to(source), path.read_text()
        if not there.exists() or there.read_text() != text:
            replace_text(there, text)
            written.append(there)
    return written


@contextmanager
def staging(repository: Path, spec: ModelSpec) -> Iterator[Path]:
    """An empty version folder on the repository's own file system, out of Triton's sight; gone afterwards.

    Triton takes no notice of folders in a model's directory whose names are no numbers.
    """
    net = repository / spec.net_name
    net.mkdir(parents=True, exist_ok=True)
    for stale in net.glob(".staging-*"):  # of exports that were killed
        if not Path("/proc", stale.name.rpartition("-")[2]).exists():
            shutil.rmtree(stale)
    folder = net / f".staging-{os.getpid()}"
    try:
        (folder / VERSION).mkdir(parents=True)
        yield folder / VERSION
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(repository: Path, spec: ModelSpec, form: Format, labels: Sequence[str], staged: Path) -> Path:
    """Make the staged version folder the model's, with the configs and labels that fit it.

    The version folder goes in by one rename after everything else is in place, and an older one goes out by one
    rename before: a server that polls sees a whole model or, for an instant, none. A network in another format stays
    beside the new one, unused, for a server that read the old config and is about to load it. Gives the folder
    published.
    """
    net, version = repository / spec.net_name, repository / spec.net_name / VERSION
    place_decode(repository)
    replace_text(repository / DECODE / CONFIG, print_config(decode_config(SPECS.values())))
    if version.exists():
        for other in FORMATS.values():
            if other.name != form.name and (version / other.filename).exists():
                (staged / other.filename).hardlink_to(version / other.filename)
        version.rename(staged.parent / "replaced")
    replace_text(net / LABELS, label_text(labels))
    replace_text(net / CONFIG, print_config(net_config(spec, form, classes=len(labels))))
    staged.rename(version)
    replace_text(repository / spec.name / VERSION / ".gitkeep", "")
    replace_text(repository / spec.name / CONFIG, print_config(ensemble_config(spec, classes=len(labels))))
    return version


def read_config(repository: Path, model: str) -> pb.ModelConfig:
    """The config of `model` in `repository`."""
    return parse_config((repository / model / CONFIG).read_text())
