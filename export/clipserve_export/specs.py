"""The facts about each model that can be exported. All other values are derived from them.

Sources: pytorchvideo docs/source/model_zoo.md and the hub functions of pytorchvideo 0.1.5; for the test crops of X3D
the SlowFast model zoo (configs/Kinetics/X3D_*.yaml, TEST_CROP_SIZE).
"""

from dataclasses import dataclass
from typing import Literal

Family = Literal["x3d", "mvit", "motion"]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The shape of the clip that a network takes: `frames` x `crop` x `crop` RGB pixels.

    Attributes:
        frames: how many frames (T).
        stride: distance between two of them, in frames at 30 fps.
        short_side: pixels to which the short side of a frame is scaled.
        crop: side of the square that is cut out of it, in pixels.
    """

    frames: int
    stride: int
    short_side: int
    crop: int

    @property
    def output_name(self) -> str:
        """The name of the decode step's output for clips of this geometry."""
        return f"CLIP_{self.frames}X{self.stride}_{self.short_side}_{self.crop}"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model: its public name, its input and its outputs."""

    name: str
    family: Family
    geometry: Geometry
    feature_size: int  # D: values in FEATURES, the embedding before the projection
    labels: str = "kinetics400.txt"  # the file in labels/ with the names of the published classes

    @property
    def net_name(self) -> str:
        """The name of the Triton model with the network. `name` itself is the ensemble."""
        return f"{self.name}_net"


def _x3d(name: str, frames: int, stride: int, crop: int) -> ModelSpec:
    # X3D's published test protocol scales the short side to the crop, which is larger than the training crop.
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
        # Trained on generated clips (clipserve_export.motion), so that there is a trained model without a download.
        ModelSpec(
            name="motion",
            family="motion",
            geometry=Geometry(frames=8, stride=8, short_side=64, crop=64),
            feature_size=192,
            labels="motion.txt",
        ),
    )
}
