"""A response that does not fit into /dev/shm is an error in time, not a request that is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipserve import VideoClassifier
from clipserve.errors import ServerBusy, VideoTooLarge
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.triton import Triton
from tests.motion_repository import ANY_PORTS

ROOT = Path(__file__).parents[2]
MIB = 2**20


def leave(free: int) -> None:
    """Make /dev/shm, which is this process's own, so small that `free` bytes are left."""
    size = shutil.disk_usage("/dev/shm").used + free
    subprocess.run(["mount", "-o", f"remount,size={size}", "/dev/shm"], check=True)


def check_crowded_server(repository: str) -> None:
    """In a process of its own, whose /dev/shm nobody else uses. Thirty clips of motion have 2.8 MiB."""
    video = Path("left.mp4")
    write_motion_video(video, "moving left", 1_234_567)
    with (
        Triton(Path(repository), models=["motion"], **ANY_PORTS) as triton,
        VideoClassifier("motion", url=triton.grpc_url) as classifier,
    ):
        leave(MIB)
        for _ in range(3):
            with pytest.raises(ServerBusy, match="shared memory") as raised:
                classifier.classify(video, sampling="clip", views=10, crops=3)
            assert raised.value.retryable
            assert classifier.classify(video).top.label == "moving left"
        # What does not even come in.
        with pytest.raises(ServerBusy, match="shared memory"):
            classifier.classify(bytes(8 * MIB))
        leave(1024 * MIB)
        assert classifier.classify(video, sampling="clip", views=10, crops=3).top.label == "moving left"
        before = shutil.disk_usage("/dev/shm").used
        waste = np.random.default_rng(0).bytes(64 * MIB)
        for _ in range(4):
            with pytest.raises(VideoTooLarge):
                classifier.classify(waste)
        assert shutil.disk_usage("/dev/shm").used < before + 1.5 * len(waste), "what was refused stays in there"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small /dev/shm")
@pytest.mark.long
def test_a_response_that_shared_memory_has_no_room_for_is_refused_and_the_next_one_served(
    repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    for name in ("decode", "motion", "motion_net"):
        shutil.copytree(repositories("onnx") / name, tmp_path / name)
    config = tmp_path / "decode" / "config.pbtxt"
    limit = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
    config.write_text(config.read_text() + limit.format("max_bytes", 32 * MIB) + limit.format("workers", 1))
    done = subprocess.run(
        [
            *("unshare", "--mount", "bash", "-c", 'mount -t tmpfs -o size=16g tmpfs /dev/shm && exec "$0" "$@"'),
            *(sys.executable, "-c"),
            "import sys; from tests.end_to_end.test_crowded_shared_memory import check_crowded_server as check;"
            "check(sys.argv[1])",
            tmp_path,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
