"""Pixels of decoded frames: colour conversion, orientation, scaling, cropping, and the clips that they fill."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
