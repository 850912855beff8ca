"""The codelab: the script in a process of its own, the notebook in a kernel, a real Triton."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.motion_repository import UNSEEN_SEED

from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "codelab.py", EXAMPLES / "codelab.ipynb"
MOTIONS = ("moving left", "moving right", "rotating clockwise", "growing")
LONGEST_SECONDS = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A typical data set: folders of videos and a CSV with a byte order mark."""
    folder = tmp_path / "my videos"
    rows = []
    for number, label in enumerate(MOTIONS):
        path = folder / "train" / label.replace(" ", "_") / f"{number}.mp4"
        path.parent.mkdir(parents=True)
        write_motion_video(path, label, UNSEEN_SEED + number, width=160, height=120, seconds=1.5)
        rows.append([number, f"./{path.relative_to(folder)}", label.replace(" ", "_")])
    with (folder / "videos.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["id", "path", "label"], *rows])
    return folder


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


def test_the_script_runs_on_videos_and_a_server_that_are_there(motion_url: str, data: Path) -> None:
    done = run_script("--data", str(data), "--model", "motion", "--url", motion_url)
    assert done.returncode == 0, done.stderr
    check_steps(done.stdout, videos=len(MOTIONS))


@pytest.mark.long
def test_the_script_starts_a_server_and_makes_its_own_videos(repositories: Callable[[FormatName], Path]) -> None:
    done = run_script("--repository", str(repositories("onnx")), "--videos", "2")
    assert done.returncode == 0, done.stderr
    assert "24 videos of 12 classes" in done.stdout
    check_steps(done.stdout, videos=24)


@pytest.mark.long
def test_the_notebook_runs_on_videos_and_a_server_that_are_there(
    motion_url: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DATA": str(data), "MODEL": "motion", "URL": motion_url}.items():
        monkeypatch.setenv(f"CODELAB_{name}", value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=LONGEST_SECONDS, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    check_steps("".join(output.text for output in outputs if output.output_type == "stream"), videos=len(MOTIONS))
    # In a notebook a table shows itself as HTML.
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("moving left" in html for html in shown)


def test_a_folder_without_one_csv_is_refused_with_a_sentence(motion_url: str, data: Path) -> None:
    (data / "more.csv").write_text("id,path,label\n")
    done = run_script("--data", str(data), "--model", "motion", "--url", motion_url)
    assert done.returncode == 1
    assert "has 2 CSV files; one is needed, with the columns id, path and label" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_notebook_is_what_the_script_gives_and_holds_no_outputs() -> None:
    tool = [sys.executable, EXAMPLES / "make_notebook.py", "--check"]
    assert subprocess.run(tool, capture_output=True, text=True).stderr == ""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells)
    assert not any("argparse" in cell.source for cell in cells)
    assert NOTEBOOK.stat().st_size < 32_000
