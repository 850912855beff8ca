"""Generated motions are what their labels say, measured from the pixels and not from the tracks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from clipserve_export.motion.backdrops import BLACK, WHITE, Backdrop
from clipserve_export.motion.choreography import draw_tracks
from clipserve_export.motion.network import CROP, FRAMES, build_motion_network
from clipserve_export.motion.scenes import LABELS, Actor, Scene
from clipserve_export.motion.shapes import SHAPES
from clipserve_export.motion.train import MIRROR, REVERSE, TRANSPOSE, UPEND
from clipserve_export.motion.videos import held_scene, write_motion_video, write_video

Planes = npt.NDArray[np.float64]

PACKAGE = Path(held_scene.__code__.co_filename).parent
NAMED = {shape.name: shape for shape in SHAPES}
NIGHT = Backdrop("plain", BLACK, BLACK, ((0.0, 0.0),), (0.0,))
SIDE = 64
SEEDS = range(12)
WAYS = {"moving left": (-1, 0), "moving right": (1, 0), "moving up": (0, -1), "moving down": (0, 1)}
TIMES = np.linspace(0.0, 1.0, FRAMES)


def staged(label: str, seed: int, *, shape: str = "square", width: int = SIDE, height: int = SIDE) -> Planes:
    """White shapes on black, float [T, H, W] in [0, 1]."""
    cast = [NAMED[shape]] * 3
    tracks = draw_tracks(label, np.random.default_rng(seed), [one.symmetry for one in cast])
    actors = tuple(Actor(one, WHITE, track) for one, track in zip(cast, tracks, strict=False))
    scene = Scene(label=label, backdrop=NIGHT, props=(), actors=actors)
    return scene.render(TIMES, width, height)[..., 0] / 255.0


def centroids(planes: Planes) -> Planes:
    """(x, y) of the white in each frame, [T, 2]."""
    grid = np.stack(np.meshgrid(np.arange(planes.shape[2]), np.arange(planes.shape[1])))
    return np.array([(grid * plane).sum((1, 2)) / plane.sum() for plane in planes])


def filmed_along_its_way(label: str, seed: int) -> Planes:
    """A moving square in a picture long enough to hold its whole way."""
    sideways = label in ("moving left", "moving right")
    return staged(label, seed, width=6 * SIDE if sideways else SIDE, height=SIDE if sideways else 6 * SIDE)


def moved(planes: Planes) -> Planes:
    """From the first to the last frame that shows the whole of a shape: (x, y) in pixels."""
    areas = planes.sum((1, 2))
    path = centroids(planes[areas > 0.98 * areas.max()])
    return path[-1] - path[0]


@pytest.mark.parametrize("label", LABELS)
def test_a_seed_gives_the_same_scene_and_the_same_pixels(label: str) -> None:
    first, second, other = (held_scene(label, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.render(TIMES, 80, 60), second.render(TIMES, 80, 60))
    assert not np.array_equal(first.render(TIMES, 80, 60), other.render(TIMES, 80, 60))


@pytest.mark.parametrize("label", LABELS)
def test_a_frame_does_not_depend_on_the_frames_rendered_with_it(label: str) -> None:
    scenes = [held_scene(label, seed) for seed in SEEDS]
    assert any(scene.noise for scene in scenes)
    for scene in scenes:
        alone = scene.render(TIMES[3:4], 64, 48)[0]
        assert np.array_equal(scene.render(TIMES, 64, 48)[3], alone)


def test_noise_changes_from_frame_to_frame() -> None:
    scene = Scene(label="still", backdrop=NIGHT, props=(), actors=(), noise=0.05)
    first, second = (scene.render(np.array([moment]), 64, 48) for moment in (0.25, 0.26))
    assert not np.array_equal(first, second)


def test_a_scene_is_the_same_at_every_resolution() -> None:
    large = staged("rotating clockwise", 1, shape="arrow", width=240, height=240)
    small = staged("rotating clockwise", 1, shape="arrow", width=60, height=60)
    averaged = large.reshape(FRAMES, 60, 4, 60, 4).mean((2, 4))
    assert np.abs(averaged - small).mean() < 0.01
    assert averaged.mean() > 0.02


@pytest.mark.parametrize("label", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_moving_shapes_move_where_the_label_says(label: str, seed: int) -> None:
    way, wanted = moved(filmed_along_its_way(label, seed)), np.array(WAYS[label])
    assert np.linalg.norm(way) > 0
    assert np.degrees(np.arccos(way @ wanted / np.linalg.norm(way))) < 20


@pytest.mark.parametrize(("label", "sign"), [("rotating clockwise", 1), ("rotating counterclockwise", -1)])
@pytest.mark.parametrize("seed", SEEDS)
def test_rotation_has_the_sign_that_a_viewer_sees(label: str, sign: int, seed: int) -> None:
    # A hand lies on one side of its axis, so its middle goes around; y points down, so clockwise is positive.
    (track,) = draw_tracks(label, np.random.default_rng(seed), [360.0])
    hand = Actor(NAMED["hand"], WHITE, replace(track, x=0.0, y=0.0, radius=0.4))
    planes = Scene(label=label, backdrop=NIGHT, props=(), actors=(hand,)).render(TIMES, SIDE, SIDE)[..., 0]
    x, y = (centroids(planes) - (SIDE - 1) / 2).T
    turned = np.degrees(np.unwrap(np.arctan2(y, x)))
    assert np.all(np.diff(turned) * sign > -0.5)
    assert (turned[-1] - turned[0]) * sign > 30


def test_no_turn_between_two_samples_looks_reversed() -> None:
    for symmetry in sorted({shape.symmetry for shape in SHAPES if shape.turns_visibly}):
        for seed in range(100):
            (track,) = draw_tracks("rotating clockwise", np.random.default_rng(seed), [symmetry])
            steps = np.degrees(np.diff([pose.angle for pose in track.poses(TIMES)]))
            assert steps.max() < symmetry / 2
            assert steps.min() >= 0


@pytest.mark.parametrize(("label", "sign"), [("growing", 1), ("shrinking", -1)])
@pytest.mark.parametrize("seed", SEEDS)
def test_growing_shapes_cover_more_and_shrinking_ones_less(label: str, sign: int, seed: int) -> None:
    areas = staged(label, seed, shape="circle").sum((1, 2))
    assert np.all(np.diff(areas) * sign >= 0)
    assert max(areas[0], areas[-1]) > 1.5 * min(areas[0], areas[-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bouncing_shape_turns_back_more_than_once(seed: int) -> None:
    (track,) = draw_tracks("bouncing", np.random.default_rng(seed), [90.0])
    x, y = track.positions(np.linspace(0, 1, 200))
    along = y if track.swing[1] else x
    turns = np.count_nonzero(np.diff(np.sign(np.diff(along))))
    assert turns >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_crossing_shapes_go_opposite_ways_and_meet(seed: int) -> None:
    one, other = draw_tracks("crossing", np.random.default_rng(seed), [90.0, 90.0])
    assert np.dot(one.travel, other.travel) < 0
    moments = np.linspace(0, 1, 200)
    gap = np.hypot(*(np.subtract(a, b) for a, b in zip(one.positions(moments), other.positions(moments), strict=True)))
    assert gap.argmin() not in (0, len(gap) - 1)
    assert gap.min() < 0.6 < gap.max()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blinking_shape_is_gone_and_back_at_the_samples(seed: int) -> None:
    shown = staged("blinking", seed).sum((1, 2))
    assert np.count_nonzero(np.diff(shown > 0.5 * shown.max())) >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_still_is_still(seed: int) -> None:
    frames = staged("still", seed)
    assert np.array_equal(frames, np.broadcast_to(frames[0], frames.shape))


def test_variation_renames_a_motion_as_it_then_looks() -> None:
    """The network's training mirrors, upends, transposes and reverses clips; each way must name what comes out."""
    operations: dict[str, tuple[torch.Tensor, Callable[[Planes], Planes]]] = {
        "mirror": (MIRROR, lambda planes: planes[:, :, ::-1]),
        "upend": (UPEND, lambda planes: planes[:, ::-1]),
        "transpose": (TRANSPOSE, lambda planes: planes.transpose(0, 2, 1)),
        "reverse": (REVERSE, lambda planes: planes[::-1]),
    }
    for name, (renamed, operation) in operations.items():
        for label in WAYS:
            direction = WAYS[LABELS[renamed[LABELS.index(label)]]]
            assert moved(operation(filmed_along_its_way(label, 5))) @ np.array(direction) > 0, f"{name} of {label}"
        assert sorted(renamed.tolist()) == list(range(len(LABELS)))
    for renamed in (MIRROR, UPEND, TRANSPOSE, REVERSE):
        assert LABELS[renamed[LABELS.index("rotating clockwise")]] == "rotating counterclockwise"
    assert LABELS[REVERSE[LABELS.index("growing")]] == "shrinking"


@pytest.mark.parametrize(
    ("width", "height", "fps", "seconds"), [(320, 240, 30, 1.0), (144, 256, 24, 0.75), (64, 64, 10, 2.0)]
)
def test_a_written_video_has_the_asked_frames_size_and_rate(
    tmp_path: Path, width: int, height: int, fps: int, seconds: float
) -> None:
    path = tmp_path / "motion.mp4"
    count = write_motion_video(path, "moving left", 9, width=width, height=height, fps=fps, seconds=seconds)
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.width, stream.height, stream.average_rate) == (width, height, fps)
    assert len(frames) == count == round(fps * seconds)


def test_several_labels_make_one_video_of_each_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "motions.mp4"
    assert write_motion_video(path, ["still", "growing"], 9, width=64, height=64, fps=10, seconds=1) == 20
    with av.open(path) as container:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    for half, label in ((shown[:10], "still"), (shown[10:], "growing")):
        expected = held_scene(label, 9).render(np.linspace(0, 1, 10), 64, 64)
        assert np.abs(np.stack(half) - expected).mean() < 8


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (40, 120, 200)])
def test_a_written_video_keeps_its_colours_through_decoding(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    path = tmp_path / "colour.mp4"
    write_video(path, [np.full((CROP, CROP, 3), colour, np.uint8)] * 8, options={"crf": "10"})
    with av.open(path) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.reshape(-1, 3).mean(0) - colour).max() < 5


def test_odd_sizes_and_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="63x64"):
        write_video(tmp_path / "odd.mp4", [np.zeros((64, 63, 3), np.uint8)])
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [])


def test_the_committed_checkpoint_is_small_and_fits_its_labels() -> None:
    checkpoint = PACKAGE / "motion.pt"
    assert checkpoint.stat().st_size <= 1_000_000
    state = torch.load(checkpoint, weights_only=True)["model_state"]
    names = (PACKAGE / "motion.txt").read_text().splitlines()
    assert tuple(names) == LABELS
    network = build_motion_network(classes=len(names))
    network.load_state_dict(state)
    assert all(torch.isfinite(value).all() for value in state.values())
