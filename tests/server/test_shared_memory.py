"""The requests that a server accepts fit into /dev/shm. It refuses others with the reason."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipserve import InvalidRequest, VideoClassifier
from clipserve_export.formats import FormatName
from clipserve_export.motion.videos import write_motion_video
from clipserve_server.repository import read_repository
from clipserve_server.shared_memory import MIB, Demand, Load, Network, Room, read_demand
from clipserve_server.triton import Triton
from tests.motion_repository import ANY_PORTS, UNSEEN_SEED

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MOTION = Network("motion", "CLIP_A", 8 * 64 * 64 * 3, max_clips=30, batch=8, instances=1)
X3D_M = Network("x3d_m", "CLIP_B", 16 * 256 * 256 * 3, max_clips=30, batch=4, instances=1)
MOST = Load(clip_bytes=30 * X3D_M.clip_bytes, video_bytes=512 * MIB, waiting_megabytes=2048)
DEMAND = Demand([MOTION, X3D_M], decoders=2, most=MOST, max_waiting=64)


@pytest.mark.parametrize("free", [64, 100, 256, 1000, 3000, 7000])
def test_what_is_let_in_fits_in_the_worst_case(free: int) -> None:
    assert DEMAND.bytes_for(DEMAND.fit(free * MIB)) <= free * MIB


def test_more_room_never_lets_in_less() -> None:
    loads = [DEMAND.fit(free * MIB) for free in range(64, 8000, 100)]
    clips = [load.clip_bytes for load in loads]
    assert clips == sorted(clips)
    assert loads[-1] == MOST


def test_with_room_for_everything_nothing_changes_and_nothing_is_said() -> None:
    room = Room(DEMAND, DEMAND.bytes_for(MOST))
    assert room.limits() == {}
    assert room.notice() is None


def test_with_less_the_notice_says_what_there_is_what_it_takes_and_what_is_let_in() -> None:
    room = Room(DEMAND, 256 * MIB)
    limits = room.limits()
    assert limits.keys() == {"max_bytes", "max_waiting_megabytes", "MAX_CLIP_B"}
    notice = room.notice()
    assert notice
    needed = -(-DEMAND.bytes_for(MOST) // MIB)
    for part in (
        "/dev/shm has 256 MiB free",
        f"need {needed} MiB",
        f"motion 30, x3d_m {limits['MAX_CLIP_B']}",
        f"--shm-size={needed}m",
    ):
        assert part in notice


def test_with_hardly_any_a_small_video_of_one_clip_is_still_tried() -> None:
    assert DEMAND.fit(MIB) == Load(MOTION.clip_bytes, MIB, 1)


def test_the_committed_configs_are_understood() -> None:
    (network,) = read_demand(REPOSITORY, [read_repository(REPOSITORY)["motion"]]).networks
    assert (network.clip, network.clip_bytes, network.batch) == ("CLIP_8X8_64_64", 8 * 64 * 64 * 3, 8)


def check_small_server(repository: str) -> None:
    """In a process whose /dev/shm has 64 MiB, as a container's has by default."""
    video = Path("bouncing.mp4")
    write_motion_video(video, "bouncing", UNSEEN_SEED)
    with Triton(Path(repository), models=["motion"], **ANY_PORTS) as triton:
        (notice,) = triton.notices()
        found = re.search(r"views x crops\): motion (\d+)", notice)
        assert found
        most = int(found[1])
        assert 1 <= most < 30
        with VideoClassifier("motion", url=triton.grpc_url) as classifier, ThreadPoolExecutor(8) as crowd:
            with pytest.raises(InvalidRequest, match=f"at most {most}"):
                classifier.classify(video, sampling="clip", views=10, crops=3)
            answers = crowd.map(lambda _: classifier.classify(video, sampling="clip", views=most), range(24))
            assert all(answer.top.label for answer in answers)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small /dev/shm")
@pytest.mark.long
def test_a_server_in_little_shared_memory_answers_everything_it_lets_in(
    repositories: Callable[[FormatName], Path], tmp_path: Path
) -> None:
    mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec"
    code = "import sys; from tests.server.test_shared_memory import check_small_server as check; check(sys.argv[1])"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", f'{mount} "$0" "$@"', sys.executable, "-c", code, repositories("onnx")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
