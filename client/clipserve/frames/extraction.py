"""Frames of videos as JPEGs, extracted by a process of its own: a decoder that crashes or hangs ends only that one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HEIGHT_PIXELS = 120
# For a long video in high definition this is enough for some of the frames. A page shows those.
LONGEST_SECONDS = 20.0

_PROGRAM = Path(__file__).with_name("frame_program.py")


def extract_thumbnail(video: bytes, *, height: int = HEIGHT_PIXELS) -> str | None:
    """A JPEG in base64 from about the middle of the video, or None."""
    return next(iter(extract(video, None, height=height).values()), None)


def extract(video: bytes, seconds: list[float] | None, *, height: int = HEIGHT_PIXELS) -> dict[float, str]:
    """JPEGs in base64 of the frames that begin at `seconds`, as many as can be extracted within LONGEST_SECONDS.

    None requests one frame from about the middle. FFmpeg runs in a process of its own: if a decoder crashes or hangs,
    that process ends and the page goes on.
    """
    return _run({"seconds": seconds, "height": height}, video)


def extract_key_frames(path: Path, seconds: list[float], *, height: int) -> dict[float, str]:
    """JPEGs in base64 of the key frames at or before `seconds` in a file, as many as come within LONGEST_SECONDS."""
    return _run({"path": str(path.absolute()), "key_frames": True, "seconds": seconds, "height": height})


def _run(request: dict[str, Any], video: bytes = b"") -> dict[float, str]:
    # -I: files in the working directory must not replace modules.
    command = [sys.executable, "-I", str(_PROGRAM)]
    try:
        output = subprocess.run(
            command, input=json.dumps(request).encode() + b"\n" + video, capture_output=True, timeout=LONGEST_SECONDS
        ).stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    jpegs = {}
    for line in output.splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last line may be incomplete
            frame = json.loads(line)
            jpegs[frame["seconds"]] = frame["jpeg"]
    return jpegs
