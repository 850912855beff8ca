"""Facts about a decoded video."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from clip_decode.sampling import Policy, Quality


@dataclass(frozen=True)
class VideoFacts:
    """Facts about a video.

    Attributes:
        codec: FFmpeg's name of the codec ("h264").
        container: FFmpeg's name of the container ("mov,mp4,m4a,3gp,3g2,mj2").
        width, height: pixels of the upright frame before scaling.
        rotation_degrees: clockwise turn from the stored frame to the upright one: 0, 90, 180 or 270.
        pixel_format: FFmpeg's name of the format of the stored frame ("yuv420p").
        fps: mean frames a second of the whole video; 0 for a single frame.
        duration_seconds: from the start of the first frame to the end of the last.
        frames: number of frames that a decode of the whole file gives.
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


@dataclass(frozen=True)
class Report(VideoFacts):
    """Facts about a video, and what was decoded of it.

    Attributes:
        timestamps_seconds: for each geometry, for each temporal view, the start of each frame used, counted from the
            first frame of the video.
        frame_numbers: in the same layout, the number of each frame used, counted from 0 in a decode of the whole file.
        policy, quality: those of the request; but "uniform" in place of "keyframes", and "fast" in place of "draft",
            where the shortcut was not possible and the frames are exact. See the module sampling.
        truncated: whether bytes are missing or damaged. The clips then hold the frames that are left.
        method: "selected" for a sparse decode (only the packets that the wanted frames depend on), "whole" for a full
            decode.
        decoder: "cpu" or "nvdec". Both give the same pixels.
        decoded_frames: number of frames that were decoded.
        decode_milliseconds: wall time from bytes to clips.
    """

    timestamps_seconds: dict[str, tuple[tuple[float, ...], ...]]
    frame_numbers: dict[str, tuple[tuple[int, ...], ...]]
    policy: Policy
    quality: Quality
    truncated: bool
    method: str
    decoder: str
    decoded_frames: int
    decode_milliseconds: float

    def to_json(self) -> str:
        """The report as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))
