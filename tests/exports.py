"""The exported models that tests serve: `python -m tests.exports onnx/motion torchscript/x3d_s`.

They are made ahead of the tests, outside any test's time limit, and kept between runs: the same
code makes the same ones.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from clipserve_export.formats import FormatName
from clipserve_export.specs import SPECS
from clipserve_export.target import Target

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "test-repositories"
# Triton's own: compiled by tests/export/build_cpp_backends.sh, or copied from its image (/opt/tritonserver/backends).
CPP_BACKENDS = ROOT / ".cache" / "backends"


class Export(NamedTuple):
    """A model in a format; written onnx/motion."""

    format_name: FormatName
    model: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of str()."""
        format_name, _, model = text.partition("/")
        return cls(format_name, model)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "/".join(self)


MOTION = frozenset({Export("onnx", "motion"), Export("torchscript", "motion")})


def copy_model(repository: Path, folder: Path, *, model: str = "motion", timeline: bool = False) -> Path:
    """`folder`, with this model of `repository` and the decode step: to change, or to serve alone.

    timeline: whether timelines are served as well.
    """
    for name in ("decode", model, SPECS[model].net_name, *(["timeline"] if timeline else [])):
        shutil.copytree(repository / name, folder / name)
    return folder


def export_torchscript(folder: Path, target: Target) -> None:
    """`motion` as TorchScript for this target, into a repository of its own."""
    from clipserve_export.exporting import export_network
    from clipserve_export.sources import PublishedSource

    export_network(PublishedSource(SPECS["motion"]), format_name="torchscript", repository=folder, target=target)


def exports_of(item: pytest.Item) -> set[Export]:
    """What a test needs: `motion` for the fixture `repositories`, for `service` the model of its `spec` as well."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if "repositories" not in fixtures:
        return set()
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if "service" in parameters and "spec" in parameters:
        return MOTION | {Export(parameters["service"], parameters["spec"].name)}
    return set(MOTION)


def make_exports(wanted: Iterable[Export]) -> None:
    """Export what is not there yet, in a process of its own. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "tests.exports", *map(str, sorted(wanted))], cwd=ROOT, check=True)


def main(wanted: list[Export]) -> None:
    """Export what is not there yet, in this process, and say so."""
    from clipserve_export.exporting import export_network
    from clipserve_export.repository import write_configs
    from clipserve_export.sources import PublishedSource
    from clipserve_export.weights import offline_weights

    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be at it
        # The first process of a parallel run renews the configs; the tests of the others may be reading them.
        run, renewed = os.environ.get("PYTEST_XDIST_TESTRUNUID", ""), FOLDER / ".renewed"
        if not run or not renewed.exists() or renewed.read_text() != run:
            for format_name in {export.format_name for export in wanted}:
                # An export keeps the operator's bounds in it; the bounds of older code would stay.
                (FOLDER / format_name / "decode" / "config.pbtxt").unlink(missing_ok=True)
                write_configs(FOLDER / format_name)
            renewed.write_text(run)
        for number, export in enumerate(wanted, 1):
            spec, started = SPECS[export.model], time.monotonic()
            made = export_network(
                PublishedSource(spec, offline_weights(spec)),
                format_name=export.format_name,
                repository=FOLDER / export.format_name,
                reuse=True,
            )
            if made:
                took = time.monotonic() - started
                print(f"exported {export} for the tests ({number} of {len(wanted)}) in {took:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main([Export.parse(text) for text in sys.argv[1:]])
