"""The `motion` model names motions it never saw: real files, real decoding, real Triton, in both formats."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipserve import VideoClassifier
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from tests.service import Service

# Training draws its scenes from another range of seeds (clipserve_export.motion.train).
FIRST_SEED = 7_000_000
LEAST_ACCURACY = 0.95
SIZES = ((320, 240), (480, 270), (270, 480), (240, 240), (640, 360), (160, 120))
FPS = (12, 24, 30, 50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each video is written once, for both formats."""
    return tmp_path_factory.mktemp("unseen")


def write_unseen_video(folder: Path, label: str, seed: int) -> Path:
    rng = np.random.default_rng((seed, 99))
    width, height = SIZES[rng.integers(len(SIZES))]
    path = folder / f"{label.replace(' ', '_')}-{seed}.mp4"
    if path.exists():
        return path
    write_motion_video(
        path, label, seed, width=width, height=height, fps=int(rng.choice(FPS)), seconds=float(rng.uniform(1.2, 3))
    )
    return path


@pytest.mark.parametrize("seeds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_motions_never_trained_on_are_named(service: Service, folder: Path, seeds: int) -> None:
    wanted = [(label, FIRST_SEED + seed) for label in LABELS for seed in range(seeds)]
    with VideoClassifier("motion", url=service.url) as classifier, ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda item: classifier.classify(write_unseen_video(folder, *item)).top.label, wanted)
        wrong = [
            f"{label} ({seed}) was called {answer}"
            for (label, seed), answer in zip(wanted, answers, strict=True)
            if answer != label
        ]
    assert 1 - len(wrong) / len(wanted) >= LEAST_ACCURACY, wrong


def test_one_frame_is_not_enough(service: Service, tmp_path: Path) -> None:
    """Frozen on any one frame, a moving scene must not be named: the classes need time."""
    from clipserve_export.motion.videos import held_scene, write_video

    correct = 0
    moving = [label for label in LABELS if label != "still"]
    with VideoClassifier("motion", url=service.url) as classifier:
        for label in moving:
            (frame,) = held_scene(label, FIRST_SEED).render(np.array([0.5]), 320, 240)
            path = tmp_path / "frozen.mp4"
            write_video(path, [frame] * 30)
            correct += classifier.classify(path).top.label == label
    assert correct <= len(moving) // 4
