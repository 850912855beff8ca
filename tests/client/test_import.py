"""The client stands alone: tritonclient[grpc], numpy and the standard library."""

import subprocess
import sys

import pytest

from tests.watching import HANG_SECONDS

HEAVY = (
    *("typer", "rich", "click", "torch", "torchvision", "pytorchvideo", "onnx", "onnxruntime"),
    *(
        "av",
        "pandas",
        "pyarrow",
        "sklearn",
        "matplotlib",
        "gradio",
        "PIL",
        "pytriton",
        "aiohttp",
        "clipserve_export",
        "clipserve_server",
    ),
)

BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_without(blocked, program):
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + program],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def test_the_client_classifies_with_nothing_else_installed(triton, tmp_path):
    program = f"""
from clipserve import VideoClassifier
with VideoClassifier(url={triton.url!r}) as classifier:
    print(classifier.classify(b"video"))
    table = classifier.classify_many([b"video", b"video"], features=True).table()
    table.to_jsonl({str(tmp_path / "table.jsonl")!r})
    table.to_csv({str(tmp_path / "table.csv")!r})
    classifier.embed([b"video"]).save({str(tmp_path / "vectors.npy")!r})
"""
    result = run_without(HEAVY, program)
    assert result.stdout.startswith("Prediction('<bytes>': archery 0.93"), result.stderr
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "vectors.npy").exists()


def test_importing_the_client_waits_for_the_first_use_of_a_name():
    program = """
import sys, clipserve
assert not {"grpc", "numpy", "tritonclient", "asyncio"} & sys.modules.keys()
assert clipserve.errors.InvalidRequest.code == "invalid-request"
assert not {"grpc", "numpy", "tritonclient"} & sys.modules.keys()
missing = [name for name in clipserve.__all__ if not hasattr(clipserve, name)]
assert not missing, missing
assert dir(clipserve) == sorted(clipserve.__all__)
for name in ("no_such_name", "no.such", "errors.InvalidRequest", "", "__wrapped__"):
    try:
        getattr(clipserve, name)
    except AttributeError as error:
        assert str(error) == f"module 'clipserve' has no attribute {name!r}"
    else:
        raise AssertionError(name)
from clipserve import *
assert VideoClassifier is clipserve.classifier.VideoClassifier
"""
    result = run_without((), program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_importing_the_client_prints_nothing_and_starts_no_thread():
    program = "import clipserve, threading; clipserve.VideoClassifier; assert threading.active_count() == 1"
    result = run_without((), program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_program_without_its_extra_says_what_to_install(missing):
    result = run_without((missing,), "from clipserve.command_line import main; main()")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert missing in line
    assert "pip install 'clipserve[cli]'" in line


def test_the_program_starts_without_what_only_export_and_serve_need():
    heavy = tuple({*HEAVY} - {"typer", "rich", "clipserve_export", "clipserve_server"})
    program = """
from clipserve.command_line import main
sys.argv = ["clipserve", "classify", "--help"]
main()
"""
    result = run_without(heavy, program)
    assert result.returncode == 0, result.stderr
    assert "Usage: clipserve classify" in result.stdout
