"""Timelines as Triton loads them: the bytes of a long video in, the answers of its windows out, as they are ready.

The code is the package timeline_model, beside the packages of the decode step, which it shares.
"""

import sys
from pathlib import Path

# First on the path, so that an installed clip_decode does not shadow the one of this repository.
sys.path.insert(0, str(Path(__file__).parents[2] / "decode" / "1" / "packages"))

from timeline_model.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
