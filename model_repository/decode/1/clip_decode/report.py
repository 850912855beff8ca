"""What was decoded, and how."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Report:
    """Facts about one decoded video.

    Attributes:
        codec: name of the picture codec, as FFmpeg spells it ("h264").
        container: name of the container, as FFmpeg spells it ("mov,mp4,m4a,3gp,3g2,mj2").
        width, height: of the upright picture in pixels, before scaling.
        rotation_degrees: by which the stored picture was turned clockwise to be upright.
        pixel_format: of the stored picture ("yuv420p").
        fps: mean frames a second over the whole video; 0 for a single frame of unknown length.
        duration_seconds: from the first frame shown to the end of the last.
        frames: how many frames a decode of the whole file gives.
        timestamps_seconds: by clip geometry, for each temporal view, when each frame used is shown,
            counted from the first frame of the video.
        truncated: whether bytes are missing or damaged: the frames used are those left.
        method: "selected" where only what the wanted frames need was decoded, "whole" where all was.
        decoder: "cpu" or "nvdec": what decoded it. Either gives the same pixels.
        decoded_frames: how many frames were decoded to get there.
        decode_milliseconds: from bytes to clips.
    """

    codec: str
    container: str
    width: int
    height: int
    rotation_degrees: int
    pixel_format: str
    fps: float
    duration_seconds: float
    frames: int
    timestamps_seconds: dict[str, tuple[tuple[float, ...], ...]]
    truncated: bool
    method: str
    decoder: str
    decoded_frames: int
    decode_milliseconds: float

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))
