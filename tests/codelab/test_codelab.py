"""The codelab: the script in a process of its own, the notebook in a kernel, a real Triton."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from clipserve import VideoClassifier
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.exports import copy_model
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED, KilledTriton

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "codelab.py", EXAMPLES / "codelab.ipynb"
MOTIONS = ("moving left", "growing", "still")
VIDEOS = 4  # of each motion: one is left out of the fit, which needs three
LONGEST_SECONDS = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A typical data set: folders of videos and a CSV with a byte order mark."""
    folder = tmp_path / "my videos"
    rows = []
    for number, label in enumerate(MOTIONS * VIDEOS):
        path = folder / "train" / label.replace(" ", "_") / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of high quality: x264 encodes the same frames differently now and then, and at its usual quality a still video
        # sometimes changed by more than the least motion of examples/still_or_moving.py.
        size = {"width": 160, "height": 120, "seconds": 1.2}
        write_motion_video(path, label, UNSEEN_SEED + number, options={"crf": "12"}, **size)
        rows.append([number, f"./{path.relative_to(folder)}", label.replace(" ", "_")])
    with (folder / "videos.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["id", "path", "label"], *rows])
    return folder


@pytest.fixture
def server(
    repositories: Callable[[FormatName], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Triton]:
    """A Triton with `motion`, over a repository of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    repository = copy_model(repositories("onnx"), tmp_path / "repository")
    with KilledTriton(repository, models=["motion"], **ANY_PORTS) as triton:
        yield triton


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CODELAB_")}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=LONGEST_SECONDS, env=environment
    )


def read_hit_ratios(output: str) -> list[float]:
    """At 1, 3 and 5 with the first settings, then with the others."""
    return [float(value) for value in re.findall(r"mean hit ratio at \d: ([\d.]+)", output)]


def check_steps(output: str, *, videos: int) -> None:
    """Check the output of every step, and that the model was right."""
    first, third, fifth, *others = read_hit_ratios(output)
    assert 0.9 <= first <= third <= fifth <= 1
    assert len(others) == 3
    assert re.search(rf"parallel=1: {videos} videos in", output)
    assert re.search(rf"parallel=5: {videos} videos in", output)
    assert "3 classified, 1 failed (1 NotAVideo)" in output
    assert re.search(r"NotAVideo: '.*broken\.mp4'", output)
    assert re.search(r"the page at http://\S+ answers with status 200", output)


def check_models(output: str, *, classes: int) -> None:
    """Check what the steps about other models print: the list, a network of one's own, a head for one's own classes."""
    assert re.search(r"^slowfast_r50 +32 x 2 .* Apache-2.0 .*76\.94", output, re.MULTILINE)
    assert re.search(r"^motion .* 1: onnx fp32 ", output, re.MULTILINE)
    # Rows are true labels; columns are the answers, in alphabetical order.
    answers = {label: (moving, still) for label, moving, still in re.findall(r"^(\w+) +(\d+) +(\d+)$", output, re.M)}
    assert answers["growing"][1] == answers["still"][0] == "0"
    found = re.search(rf"Fitted\('my_actions' on 'motion': {classes} classes, top-1 ([\d.]+)", output)
    assert found
    assert float(found[1]) >= 0.85


def test_the_script_runs_on_videos_and_a_server_that_are_there(server: Triton, data: Path, tmp_path: Path) -> None:
    place = ("--url", server.grpc_url, "--repository", str(server.repository))
    done = run_script("--data", str(data), "--model", "motion", *place)
    # With the server's log: Triton may crash as it loads a model on a busy machine (server issue 8882).
    assert done.returncode == 0, f"{done.stderr}\n{server.log_path.read_text(errors='replace')[-4000:]}"
    check_steps(done.stdout, videos=len(MOTIONS) * VIDEOS)
    check_models(done.stdout, classes=len(MOTIONS))
    # Both models are served, and right about a new video.
    new = tmp_path / "new.mp4"
    write_motion_video(new, "growing", UNSEEN_SEED + 100, width=160, height=120, seconds=1.2)
    for model, label in (("my_actions", "growing"), ("still_or_moving", "moving")):
        with VideoClassifier(model, server.grpc_url) as classifier:
            assert classifier.classify(new).top.label == label


@pytest.mark.long
def test_the_script_starts_a_server_and_makes_its_own_videos(repositories: Callable[[FormatName], Path]) -> None:
    done = run_script("--repository", str(repositories("onnx")), "--videos", "2")
    assert done.returncode == 0, done.stderr
    assert "24 videos of 12 classes" in done.stdout
    check_steps(done.stdout, videos=24)
    check_models(done.stdout, classes=4)
    assert not list(repositories("onnx").glob("my_actions*"))


@pytest.mark.long
def test_the_notebook_runs_on_videos_and_a_server_that_are_there(
    server: Triton, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"URL": server.grpc_url, "REPOSITORY": str(server.repository)}
    for name, value in {"DATA": str(data), "MODEL": "motion", **place}.items():
        monkeypatch.setenv(f"CODELAB_{name}", value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=LONGEST_SECONDS, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    check_steps(printed, videos=len(MOTIONS) * VIDEOS)
    assert "has reloaded still_or_moving" in printed
    assert 'install "ipywidgets"' not in printed  # rich would
    # In a notebook a table shows itself as HTML.
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("moving left" in html for html in shown)


def test_a_folder_without_one_csv_is_refused_with_a_sentence(data: Path) -> None:
    (data / "more.csv").write_text("id,path,label\n")
    done = run_script("--data", str(data), "--model", "motion", "--url", "localhost:1")  # is not asked before that
    assert done.returncode == 1
    assert "has 2 CSV files; one is needed, with the columns id, path and label" in done.stderr
    assert "Traceback" not in done.stderr
    # No folder of the server's was named.
    assert "two steps that add models are left out" in done.stdout


def test_the_notebook_is_what_the_script_gives_and_holds_no_outputs() -> None:
    tool = [sys.executable, EXAMPLES / "make_notebook.py", "--check"]
    assert subprocess.run(tool, capture_output=True, text=True).stderr == ""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells)
    assert not any("argparse" in cell.source for cell in cells)
    assert NOTEBOOK.stat().st_size < 32_000
