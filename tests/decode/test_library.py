"""clip_decode as a library: its public names, its defaults, its README and its layers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import clip_decode
from clip_decode import Geometry, InvalidRequest, Limits, Sampling, decode_clips
from tests.decode.synthesis import Clip

PACKAGE = Path(clip_decode.__file__).parent
# A package imports only from itself and those before it.
LAYERS = ("demux", "dependencies", "plan", "picture", "decode", "engine", "window_engine")
GEOMETRY = Geometry(4, 5, 64, 48)


def run(program: str, folder: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_single_geometry_gives_its_clips_alone() -> None:
    data = Clip(frames=20).make()
    clips, report = decode_clips(data, GEOMETRY)
    named, same = decode_clips(data, {"clip": GEOMETRY}, Sampling(), Limits())
    assert (clips == named["clip"]).all()
    assert report.timestamps_seconds == same.timestamps_seconds
    assert clips.shape == (1, 4, 48, 48, 3)
    with pytest.raises(InvalidRequest, match="no clip"):
        decode_clips(data, {})


@pytest.mark.parametrize("data", ["video.mp4", Path("video.mp4"), None])
def test_what_is_not_the_bytes_of_a_file_is_a_type_error_that_says_so(data: object) -> None:
    with pytest.raises(TypeError, match=r"bytes of a video file, got \w+: use Path\(...\).read_bytes"):
        decode_clips(data, GEOMETRY)  # type: ignore[call-overload]


def test_ffmpeg_and_numpy_are_loaded_only_to_decode() -> None:
    names = sorted(set(clip_decode.__all__) - {"decode_clips", "decode_windows"})
    program = f"""
import sys
from clip_decode import {", ".join(names)}
assert not {{"av", "numpy"}} & set(sys.modules)
from clip_decode import decode_clips
assert "av" in sys.modules
"""
    run(program)
    assert dir(clip_decode) == sorted(clip_decode.__all__)
    with pytest.raises(AttributeError, match="decode_clip"):
        clip_decode.decode_clip  # type: ignore[attr-defined] # noqa: B018


def test_the_blocks_of_the_readme_print_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(4):
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(Clip(frames=30 + number).make())
    options = {"x264-params": "keyint=60:bframes=3:b-adapt=0:scenecut=0"}
    (tmp_path / "video.mp4").write_bytes(Clip(frames=300, width=320, height=240, options=options).make())
    blocks = re.findall(r"```(\w*)\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    programs = [number for number, (language, _) in enumerate(blocks) if language == "python"]
    assert len(programs) == 2
    for number in programs:
        assert run(blocks[number][1], tmp_path) == blocks[number + 1][1]


def layer(module: str) -> int:
    """Place of a module's package in LAYERS; the vocabulary is below all of them."""
    package = module.split(".")[1]
    return LAYERS.index(package) if package in LAYERS else -1


def test_imports_go_one_way() -> None:
    imports: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not any(node.level for node in nodes), f"{module} has a relative import"
        imports[module] = {node.module or "" for node in nodes if (node.module or "").startswith("clip_decode.")}
    del imports["clip_decode"]
    for module, imported in imports.items():
        assert all(layer(other) <= layer(module) for other in imported), (module, imported)
    TopologicalSorter(imports).prepare()  # Raises CycleError.
