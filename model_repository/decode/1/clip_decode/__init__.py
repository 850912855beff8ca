"""Bytes of a video file in, uint8 clips out: exact frames, little work, no other file opened."""

from .engine import decode_clips
from .errors import DecodeError
from .geometry import Geometry
from .limits import Limits
from .report import Report
from .sampling import Sampling

__all__ = ["DecodeError", "Geometry", "Limits", "Report", "Sampling", "decode_clips"]
