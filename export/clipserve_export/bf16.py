"""Do a network's answers hold in bf16? Asked of every ONNX export, where the processor can tell.

OpenVINO runs these networks nearly twice as fast in bf16 on processors that multiply matrices in it
(AMX, AVX512-BF16). How far the answers move depends on the weights; so what was found is written
into export.json, and a server that is left to choose goes by it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipserve_export.formats import Run
from clipserve_export.network import ActionNetwork
from clipserve_export.parity import Parity, Tolerance, compare
from clipserve_export.specs import Geometry

if TYPE_CHECKING:
    import openvino

# Seen: 5e-3 (x3d_m) to 9e-3 (mvit_base_16x4) in features with random weights.
SCORE_TOLERANCE = 0.01  # absolute, on probabilities: what two digits on a screen show
FEATURE_TOLERANCE = 0.02  # relative to the largest feature
CHECKED_SHAPES = ((1, 1),) * 4  # batch, views; the best class of each must stay the best
SEED = 0  # the same clips every time: what an export says of bf16 depends on its weights alone


@dataclass(frozen=True, kw_only=True)
class Bf16:
    """How far a network in bf16 is from itself in float32, and whether that is close enough."""

    holds: bool
    parity: Parity


def check_bf16(network: ActionNetwork, path: Path, geometry: Geometry) -> Bf16 | None:
    """Run an ONNX file in bf16; None where this processor does not compute in it, or OpenVINO is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    tolerance = Tolerance(scores=SCORE_TOLERANCE, features=FEATURE_TOLERANCE)
    parity = compare(network, load_bf16(core, path), geometry, tolerance=tolerance, shapes=CHECKED_SHAPES, seed=SEED)
    return Bf16(holds=parity.holds and parity.top1_agreements == parity.clips, parity=parity)


def load_bf16(core: openvino.Core, path: Path) -> Run:
    """A function that runs the file in OpenVINO, in bf16, a clip at a time, as a server does."""
    model = core.read_model(path)
    clip = model.input(0).partial_shape
    clip[0] = clip[1] = 1
    model.reshape({model.input(0): clip})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})

    def run(clip: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        results = compiled([clip])
        return results["SCORES"], results["FEATURES"]

    return run
