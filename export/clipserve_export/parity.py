"""Whether an exported file computes what its network computes; for ONNX also in bf16. Checked before publication."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from clipserve_export.clips import random_clips
from clipserve_export.errors import ParityError, WeightsError
from clipserve_export.network import ActionNetwork, as_tuple
from clipserve_export.specs import Geometry

if TYPE_CHECKING:
    import openvino

    # Not at run time: parity is also used without the libraries of the file formats.
    from clipserve_export.formats import Run

# (batch, views) of the clips that are compared. Not (2, 2), with which the exporters trace: so a size that tracing has
# fixed is found.
CHECKED_SHAPES = ((1, 1), (3, 1), (1, 2))


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an exported network may differ from the network itself."""

    scores: float  # absolute, on probabilities
    features: float  # relative to the largest feature


# Measured with random and trained weights: 1e-6 in features at most; x3d_l 1e-5.
FLOAT32 = Tolerance(scores=1e-4, features=1e-3)
# Two digits of a score on a screen. Measured with random weights: 5e-3 (x3d_m) to 9e-3 (mvit_base_16x4) in features.
BF16 = Tolerance(scores=0.01, features=0.02)
BF16_SHAPES = ((1, 1),) * 4  # batch, views; the best class of each must stay the best
BF16_SEED = 0  # the same clips every time, so that the result depends on the weights alone


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported network differs from the network itself in float32."""

    clips: int  # compared
    top1_agreements: int  # clips with the same best class
    score_error: float  # max |difference| of SCORES
    feature_error: float | None  # max |difference| of FEATURES over their largest magnitude; None without FEATURES
    tolerance: Tolerance = FLOAT32

    @property
    def holds(self) -> bool:
        """Whether both errors are within the tolerance. NaN is not."""
        features_hold = self.feature_error is None or self.feature_error <= self.tolerance.features
        return self.score_error <= self.tolerance.scores and features_hold

    def require(self) -> None:
        """Raise ParityError unless it holds."""
        if not self.holds:
            raise ParityError(f"the exported file differs from the network, so nothing was written: {self}")

    def __str__(self) -> str:
        features = ""
        if self.feature_error is not None:
            features = f" {self.feature_error:.1e} in features (relative, allowed {self.tolerance.features:.0e}),"
        return (
            f"max error {self.score_error:.1e} in scores (allowed {self.tolerance.scores:.0e}),{features}"
            f" top-1 equal in {self.top1_agreements} of {self.clips} clips"
        )


def compare(
    network: ActionNetwork,
    exported: Run,
    geometry: Geometry,
    *,
    tolerance: Tolerance = FLOAT32,
    shapes: Sequence[tuple[int, int]] = CHECKED_SHAPES,
    seed: int | None = None,
) -> Parity:
    """Run both on random clips of every (batch, views) in `shapes`. Without a seed, the clips are new each time.

    Raises:
        WeightsError: `network` answers NaN or infinite values.
        ParityError: `exported` fails, or its answers have another shape.
    """
    fresh = torch.seed() % 2**32 if seed is None else seed
    clips = agreements = 0
    score_error, feature_error = 0.0, None
    for offset, (batch, views) in enumerate(shapes):
        clip = random_clips(geometry, batch=batch, views=views, seed=fresh + offset)
        with torch.no_grad():
            wanted = as_tuple(network(clip))
        if not all(bool(values.isfinite().all()) for values in wanted):
            raise WeightsError(
                "the network itself gives NaN or infinite values, before anything is exported: look at its weights,"
                " such as batch norms with a negative running_var"
            )
        try:
            got = tuple(map(torch.from_numpy, exported(clip.numpy())))
        except Exception as error:  # each runtime has kinds of its own
            reason = str(error).strip().partition("\n")[0]
            raise ParityError(
                f"the export does not run a batch of {batch} with {views} views: {type(error).__name__}: {reason}."
                " Perhaps the network fixes the number of clips as it is traced, as len(x) does: write x.shape[0]"
            ) from error
        if [values.shape for values in got] != [values.shape for values in wanted]:
            raise ParityError(
                f"for a batch of {batch} with {views} views the export gives {describe_shapes(got)}, the network"
                f" {describe_shapes(wanted)}"
            )
        clips += batch
        agreements += int((wanted[0].argmax(1) == got[0].argmax(1)).sum())
        score_error = _larger(score_error, (wanted[0] - got[0]).abs().max())
        for features, got_features in zip(wanted[1:], got[1:], strict=True):
            size = features.abs().max().clamp(min=torch.finfo(features.dtype).tiny)  # all may be 0, behind a ReLU
            feature_error = _larger(feature_error or 0.0, (features - got_features).abs().max() / size)
    return Parity(
        clips=clips,
        top1_agreements=agreements,
        score_error=score_error,
        feature_error=feature_error,
        tolerance=tolerance,
    )


def describe_shapes(answers: Sequence[torch.Tensor]) -> str:
    """Their shapes, for a message."""
    return " and ".join(str(tuple(values.shape)) for values in answers)


def _larger(worst: float, error: torch.Tensor) -> float:
    # max() drops a NaN that comes second.
    value = float(error)
    return value if value != value or value > worst else worst


@dataclass(frozen=True, kw_only=True)
class Bf16:
    """How far a network in bf16 differs from itself in float32, and whether that is close enough."""

    holds: bool
    parity: Parity


def check_bf16(network: ActionNetwork, path: Path, geometry: Geometry) -> Bf16 | None:
    """Compare an ONNX file in bf16 with its network.

    None without OpenVINO, on a processor without bf16, or for a file that OpenVINO does not run.

    OpenVINO runs these networks nearly twice as fast in bf16 on processors that multiply matrices in it (AMX,
    AVX512-BF16). How far the answers move depends on the weights. The result goes into export.json, and a server with
    the precision `auto` follows it.
    """
    core = open_openvino()
    if core is None or "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    try:
        run = load_openvino(core, path, "bf16")
        parity = compare(network, run, geometry, tolerance=BF16, shapes=BF16_SHAPES, seed=BF16_SEED)
    except (RuntimeError, ParityError):  # OpenVINO's own are RuntimeErrors
        return None
    return Bf16(holds=parity.holds and parity.top1_agreements == parity.clips, parity=parity)


def runs_in_openvino(network: ActionNetwork, path: Path, geometry: Geometry) -> bool | None:
    """Whether OpenVINO has all operators of an ONNX file, and answers as its network. None without OpenVINO."""
    core = open_openvino()
    if core is None:
        return None
    try:
        run = load_openvino(core, path, "f32")
        # Not closer than bf16, which servers may choose: a file in fp16 is computed in f32.
        return compare(network, run, geometry, tolerance=BF16, shapes=((1, 1),)).holds
    except (RuntimeError, ParityError):  # OpenVINO's own are RuntimeErrors
        return False


def open_openvino() -> openvino.Core | None:
    """OpenVINO, if it is installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    return openvino.Core()


def load_openvino(core: openvino.Core, path: Path, precision: str) -> Run:
    """A function that runs the file in OpenVINO, one clip at a time, as a server does.

    Raises RuntimeError for what OpenVINO does not run.
    """
    model = core.read_model(path)
    clip = model.input(0).partial_shape
    clip[0] = clip[1] = 1
    model.reshape({model.input(0): clip})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    names = [name for name in ("SCORES", "FEATURES") if any(name in port.get_names() for port in compiled.outputs)]

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        results = compiled([clip])
        return tuple(results[name] for name in names)

    return run
