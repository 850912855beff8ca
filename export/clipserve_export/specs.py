"""The facts about each model that can be exported by its name. All other values are derived from them.

Sources: pytorchvideo docs/source/model_zoo.md and the hub functions of pytorchvideo 0.1.5; for test crops the SlowFast
model zoo (configs/Kinetics/X3D_*.yaml and configs/Kinetics/pytorchvideo/*.yaml, TEST_CROP_SIZE); for mean and deviation
its slowfast/config/defaults.py (DATA.MEAN, DATA.STD).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from clipserve.contract import ClipContract
from clipserve_export.target import Precision

OWN = "own"  # the family of networks that are not in SPECS


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
    """One model: its name, its contract, and the adapter that builds its network.

    Attributes:
        name: of the public model.
        family: the module of `clipserve_export.families` with its adapter.
        contract: what it takes and answers.
        labels: the file in this package with the names of the published classes; "" if there are none.
        clip_megabytes: MiB of memory for each clip, see capacity.py.
        gpu_clip_megabytes: the same on a GPU by precision, where it was measured.
    """

    name: str
    family: str
    contract: ClipContract
    labels: str = "labels/kinetics400.txt"
    clip_megabytes: int
    gpu_clip_megabytes: Mapping[Precision, int] = field(default_factory=dict, hash=False)

    @property
    def net_name(self) -> str:
        """The name of the Triton model with the network. `name` itself is the ensemble."""
        return f"{self.name}_net"

    @property
    def geometry(self) -> Geometry:
        """The shape of its clips."""
        contract = self.contract
        return Geometry(
            frames=contract.frames, stride=contract.stride, short_side=contract.short_side, crop=contract.crop
        )

    @property
    def feature_size(self) -> int | None:
        """D: values in FEATURES, the embedding before the projection; None without one."""
        return self.contract.feature_size


_published = partial(
    ClipContract,
    mean=(0.45,) * 3,
    deviation=(0.225,) * 3,
    sampling="clip",
    classes=400,
    code_licence="Apache-2.0",
    code_source="https://github.com/facebookresearch/pytorchvideo (0.1.5)",
    # README of pytorchvideo: "PyTorchVideo is released under the Apache 2.0 License"; its model zoo names no other.
    weights_licence="Apache-2.0",
    weights_source="https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/model_zoo.md",
)


def _accuracy(top_1: float, top_5: float) -> str:
    return f"top-1 {top_1:.2f}, top-5 {top_5:.2f} on Kinetics-400 (PyTorchVideo's model zoo)"


def _x3d(name: str, frames: int, stride: int, crop: int, top: tuple[float, float], megabytes: int) -> ModelSpec:
    # X3D's published test protocol scales the short side to the crop, which is larger than the training crop.
    contract = _published(
        frames=frames,
        stride=stride,
        short_side=crop,
        crop=crop,
        views=10,
        crops=3,
        feature_size=2048,
        accuracy=_accuracy(*top),
    )
    return ModelSpec(name=name, family="x3d", contract=contract, clip_megabytes=megabytes)


def _mvit(name: str, frames: int, stride: int, top: tuple[float, float], megabytes: int) -> ModelSpec:
    contract = _published(
        frames=frames, stride=stride, short_side=256, crop=224, views=5, feature_size=768, accuracy=_accuracy(*top)
    )
    return ModelSpec(name=name, family="mvit", contract=contract, clip_megabytes=megabytes)


def _convolutional(
    name: str,
    family: str,
    frames: int,
    stride: int,
    top: tuple[float, float],
    megabytes: int,
    *,
    feature_size: int = 2048,
) -> ModelSpec:
    contract = _published(
        frames=frames,
        stride=stride,
        short_side=256,
        crop=256,
        views=10,
        crops=3,
        feature_size=feature_size,
        accuracy=_accuracy(*top),
    )
    return ModelSpec(name=name, family=family, contract=contract, clip_megabytes=megabytes)


# The frames of the fast pathway, which has four times as many as the slow one; 2048 + 256 features.
_slowfast = partial(_convolutional, family="slowfast", stride=2, feature_size=2304)

_X3D_M = _x3d("x3d_m", 16, 5, 256, (75.94, 92.72), 152)

SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _x3d("x3d_xs", 4, 12, 182, (69.12, 88.63), 18),
        _x3d("x3d_s", 13, 6, 182, (73.33, 91.27), 62),
        replace(_X3D_M, gpu_clip_megabytes={"fp32": 114, "fp16": 57}),
        _x3d("x3d_l", 16, 5, 356, (77.44, 93.31), 294),
        _mvit("mvit_base_16x4", 16, 4, (78.85, 93.85), 235),
        _mvit("mvit_base_32x3", 32, 3, (80.30, 94.69), 740),
        _convolutional("c2d_r50", "resnet", 8, 8, (71.46, 89.68), 143),
        _convolutional("i3d_r50", "resnet", 8, 8, (73.27, 90.70), 147),
        _convolutional("slow_r50", "resnet", 8, 8, (74.58, 91.63), 155),
        _slowfast("slowfast_r50", frames=32, top=(76.94, 92.69), megabytes=175),
        _slowfast("slowfast_r101", frames=32, top=(77.90, 93.27), megabytes=166),
        _slowfast("slowfast_16x8_r101_50_50", frames=64, top=(78.70, 93.61), megabytes=329),
        _convolutional("csn_r101", "csn", 32, 2, (77.00, 92.90), 491),
        _convolutional("r2plus1d_r50", "r2plus1d", 16, 4, (76.01, 92.23), 243),
        # Trained on generated clips (clipserve_export.motion), so that there is a trained model without a download.
        ModelSpec(
            name="motion",
            family="motion",
            contract=ClipContract(
                frames=8,
                stride=8,
                short_side=64,
                crop=64,
                mean=(0.45,) * 3,
                deviation=(0.225,) * 3,
                classes=12,
                feature_size=192,
                accuracy="top-1 above 95 on generated videos of new seeds (tests/end_to_end)",
                code_licence="Apache-2.0",
                code_source="clipserve",
                weights_licence="Apache-2.0",
                weights_source="clipserve (make motion)",
            ),
            labels="motion/motion.txt",
            clip_megabytes=1,
        ),
    )
}
