"""The facts about each model that can be exported. Everything else is derived from them.

Sources: pytorchvideo docs/source/model_zoo.md and the hub functions of pytorchvideo 0.1.5; for the test crops of X3D
the SlowFast model zoo (configs/Kinetics/X3D_*.yaml, TEST_CROP_SIZE).
"""

from dataclasses import dataclass
from typing import Literal

Family = Literal["x3d", "mvit", "motion"]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The shape of the clip a network looks at: `frames` x `crop` x `crop` RGB pixels.

    frames: how many (T). stride: distance between two of them, in frames at 30 fps.
    short_side: what a frame's short side is scaled to. crop: side of the square cut out of it, in pixels.
    """

    frames: int
    stride: int
    short_side: int
    crop: int

    @property
    def output_name(self) -> str:
        """The decode step's output that carries clips of this geometry."""
        return f"CLIP_{self.frames}X{self.stride}_{self.short_side}_{self.crop}"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model: its public name, what it looks at and what it gives back."""

    name: str
    family: Family
    geometry: Geometry
    feature_size: int  # D: values in FEATURES, the embedding ahead of the projection
    labels: str = "kinetics400.txt"  # the file in labels/ that names the published classes

    @property
    def net_name(self) -> str:
        """The Triton model that holds the network; `name` itself is the ensemble."""
        return f"{self.name}_net"


def _x3d(name: str, frames: int, stride: int, crop: int) -> ModelSpec:
    # The published test protocol scales X3D's short side to the crop itself, which is larger than the training crop.
    geometry = Geometry(frames=frames, stride=stride, short_side=crop, crop=crop)
    return ModelSpec(name=name, family="x3d", geometry=geometry, feature_size=2048)


def _mvit(name: str, frames: int, stride: int) -> ModelSpec:
    geometry = Geometry(frames=frames, stride=stride, short_side=256, crop=224)
    return ModelSpec(name=name, family="mvit", geometry=geometry, feature_size=768)


SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _x3d("x3d_xs", 4, 12, 182),
        _x3d("x3d_s", 13, 6, 182),
        _x3d("x3d_m", 16, 5, 256),
        _x3d("x3d_l", 16, 5, 356),
        _mvit("mvit_base_16x4", 16, 4),
        _mvit("mvit_base_32x3", 32, 3),
        # Trained here on generated clips (clipserve_export.motion): right without a download.
        ModelSpec(
            name="motion",
            family="motion",
            geometry=Geometry(frames=8, stride=8, short_side=64, crop=64),
            feature_size=192,
            labels="motion.txt",
        ),
    )
}
