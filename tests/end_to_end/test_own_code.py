"""A repository is served with the code that it carries, whatever is installed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

import clip_decode
from clipserve_server.triton import Triton
from tests.motion_repository import video_input


def test_an_installed_clip_decode_does_not_shadow_the_one_of_the_repository(
    serve: Callable[..., Triton], motion_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert motion_repository not in Path(clip_decode.__file__).parents, "another one is installed"
    code = motion_repository / "decode" / "1" / "packages" / "clip_decode"
    # A message of the process that talks to Triton, and one of a decode worker.
    change(code / "limits.py", "the file has", "this very file has")
    change(code / "demux" / "container.py", "not a video; mp4", "not a video at all; mp4")
    stray = tmp_path / "elsewhere" / "clip_decode"
    stray.mkdir(parents=True)
    (stray / "__init__.py").write_text("raise ImportError('this is the code of the working directory')")
    monkeypatch.chdir(stray.parent)
    triton = serve(max_bytes="1000")
    with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        assert "this very file has 1001 bytes" in refusal(client, bytes(1001))
        assert "not a video at all" in refusal(client, b"just some text, repeated. " * 20)


def change(source: Path, text: str, replacement: str) -> None:
    changed = source.read_text().replace(text, replacement)
    source.unlink()  # Not in place: it may be a link to the original.
    source.write_text(changed)


def refusal(client: triton_grpc.InferenceServerClient, video: bytes) -> str:
    with pytest.raises(InferenceServerException) as raised:
        client.infer("motion", [video_input(video)])
    return str(raised.value.message())
