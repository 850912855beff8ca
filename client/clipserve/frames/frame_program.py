"""A program that extracts single frames of a video as JPEGs. A damaged file that crashes FFmpeg ends only this process.

python frame_program.py < REQUEST + video

The request is one line of JSON: {"seconds": [0.0, 1.25], "height": 120}; null instead of the list requests one frame
from the middle. With "key_frames": true each frame is the key frame before that time, which takes little decoding. The
rest of stdin is the video; with "path": "..." the video is that file, which is not read as a whole. The program writes
one line of JSON per frame to stdout: {"seconds": 1.25, "jpeg": "base64..."}

FFmpeg reads bytes that strangers upload. So it opens only the containers of videos, and no other file or address that
the bytes name. The program imports nothing of this package, so that it starts quickly.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# The containers that the server's decode step opens.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,h264,hevc,ivf,gif,apng"

# A seek goes to a key frame and decodes from there. Over shorter distances it is as fast to continue decoding.
SEEK_FROM_SECONDS = 4.0
# Frames just after a key frame may depend on frames before it, so a seek aims this far ahead of the wanted frame.
LEAD_SECONDS = 1.0
# Both times come from the file's clock, so they differ by rounding alone. At 120 fps frames are 0.008 s apart.
SAME_SECONDS = 0.002
JPEG_QUALITY = 82


def extract_frames(video: bytes | BinaryIO, seconds: Sequence[float], *, height: int) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds, JPEG), in order of time, for each of `seconds` at which a frame begins.

    Args:
        video: the bytes of a file.
        seconds: times of frames, counted from the first frame of the video.
        height: height of the JPEGs in pixels. Their width keeps the aspect ratio, and they are turned upright.

    Raises:
        OSError, ValueError: FFmpeg does not open the bytes as a video.
    """
    reader = FrameReader(video)
    for time in sorted(set(seconds)):
        frame = reader.find(time)
        if frame is not None:
            yield time, encode_frame(frame, height)


def extract_key_frames(
    video: bytes | BinaryIO, seconds: Sequence[float], *, height: int
) -> Iterator[tuple[float, bytes]]:
    """Yield (seconds, JPEG) of the key frame at or before each of `seconds`. Raises what `extract_frames` raises."""
    reader = FrameReader(video)
    for time in sorted(set(seconds)):
        yield time, encode_frame(reader.jump_to(time), height)


def extract_thumbnail(video: bytes | BinaryIO, *, height: int) -> tuple[float, bytes]:
    """(seconds, JPEG) of one frame from about the middle. Raises what `extract_frames` raises."""
    reader = FrameReader(video)
    frame = reader.advance_to(reader.duration_seconds / 2)
    return reader.seconds, encode_frame(frame, height)


class FrameReader:
    """Reads frames of a video by time, forward. It seeks over long distances.

    Attributes:
        decoded_since_seek: how many frames it decoded since the last seek, or since the beginning.
    """

    def __init__(self, video: bytes | BinaryIO) -> None:
        self._video = io.BytesIO(video) if isinstance(video, bytes) else video
        self._origin = self._seconds = 0.0
        self._open()
        self._origin = self._seconds
        self._seconds = 0.0
        self._can_seek = True

    @property
    def seconds(self) -> float:
        """The time of the current frame."""
        return self._seconds

    @property
    def duration_seconds(self) -> float:
        """The duration that the container states; 0 if it states none."""
        return float(self._container.duration or 0) / 1_000_000

    def find(self, seconds: float) -> VideoFrame | None:
        """The frame that begins at `seconds`, or None. Times of successive calls must not decrease."""
        frame = self.advance_to(seconds)
        return frame if abs(self._seconds - seconds) <= SAME_SECONDS else None

    def advance_to(self, seconds: float) -> VideoFrame:
        """The first frame from `seconds` on, or the last frame of the video."""
        if self._can_seek and seconds - self._seconds > SEEK_FROM_SECONDS:
            self._seek(seconds)
        while self._seconds < seconds - SAME_SECONDS and self._decode_next():
            pass
        return self._frame

    def jump_to(self, seconds: float) -> VideoFrame:
        """The key frame at or before `seconds`; where the container cannot seek, the first frame from then on."""
        try:
            target = (seconds + self._origin) / float(self._stream.time_base)
            self._container.seek(round(target), stream=self._stream)
            self._restart()
            if self._decode_next():
                return self._frame
        except (OSError, ValueError):
            pass
        self._can_seek = False
        if self._seconds > seconds:
            self._open()
        return self.advance_to(seconds)

    def _open(self) -> None:
        import av

        self._video.seek(0)
        self._container = av.open(
            self._video,
            mode="r",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "none"},
            metadata_errors="replace",
            io_open=_refuse_open,
        )
        stream: Any = self._container.streams.best("video")
        if stream is None:
            raise ValueError("the file has no video stream")
        self._stream = stream
        self._stream.thread_type = "AUTO"
        self._restart()
        if not self._decode_next():
            raise ValueError("the video stream has no frame")

    def _restart(self) -> None:
        self._frames: Iterator[VideoFrame] = self._container.decode(self._stream)
        self.decoded_since_seek = 0

    def _decode_next(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._frame = frame
        # Frames of raw streams have no time. Like the server, assume a constant frame rate.
        time = frame.time
        if time is None:
            time = self.decoded_since_seek / float(self._stream.average_rate or 25)
        self._seconds = float(time) - self._origin
        self.decoded_since_seek += 1
        return True

    def _seek(self, seconds: float) -> None:
        """Seek to shortly before `seconds`. If the container cannot seek, start again from the beginning."""
        before = self._seconds
        target = (seconds - LEAD_SECONDS + self._origin) / float(self._stream.time_base)
        try:
            self._container.seek(round(target), stream=self._stream)
            self._restart()
            arrived = (
                self._decode_next()
                and self._frame.pts is not None
                and before - LEAD_SECONDS <= self._seconds <= seconds
            )
        except (OSError, ValueError):
            arrived = False
        if not arrived:
            self._can_seek = False
            self._open()


def encode_frame(frame: Any, height: int) -> bytes:
    """The frame turned upright as a JPEG of that height. Pixels count as square, as they do for the networks."""
    turned = frame.rotation % 180 != 0
    scale = height / (frame.width if turned else frame.height)
    image = frame.to_image(width=max(1, round(frame.width * scale)), height=max(1, round(frame.height * scale)))
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
    raise OSError("opening anything but the given bytes is not allowed")


def main() -> None:
    """Answer the request on stdin. Each frame is written as soon as it is encoded."""
    request = json.loads(sys.stdin.buffer.readline())
    path, height, times = request.get("path"), request["height"], request["seconds"]
    video = sys.stdin.buffer.read() if path is None else Path(path).open("rb")  # noqa: SIM115 - open to the end
    frames: Iterable[tuple[float, bytes]]
    if times is None:
        frames = [extract_thumbnail(video, height=height)]
    else:
        extract = extract_key_frames if request.get("key_frames") else extract_frames
        frames = extract(video, times, height=height)
    for seconds, jpeg in frames:
        sys.stdout.write(json.dumps({"seconds": seconds, "jpeg": base64.b64encode(jpeg).decode()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
