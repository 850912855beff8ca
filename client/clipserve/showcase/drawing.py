"""Draws single frames of a video: a program of its own, so that a bad file can only end this one.

python drawing.py < ORDER + video    one line of JSON a frame on stdout: {"seconds": 1.25, "jpeg": "base64..."}

The order is a line of JSON, {"seconds": [0.0, 1.25], "height": 120}; null for the seconds asks for one frame from the
middle. The rest of stdin is the video. FFmpeg runs on bytes that strangers upload: it opens no other container than a
video's and follows nothing that they name.
Nothing of this package is imported, for the sake of a quick start.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# The containers that the server's decode step opens.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,h264,hevc,ivf"

# A seek costs the way from the last key frame: over shorter distances decoding on is as fast.
SEEK_FROM_SECONDS = 4.0
# Pictures just after a key frame may lean on some before it: land well ahead of what is wanted.
LEAD_SECONDS = 1.0
# Both clocks are the file's own, so this covers rounding alone; frames of 120 a second are 0.008 apart.
SAME_SECONDS = 0.002
JPEG_QUALITY = 82


def draw_frames(video: bytes, seconds: Sequence[float], *, height: int) -> Iterator[tuple[float, bytes]]:
    """Yield (moment, upright JPEG of that height) in order of time, for each moment at which a frame begins.

    Args:
        video: the bytes of a file.
        seconds: moments, counted from the first frame of the video.
        height: of the pictures, in pixels; their width follows.

    Raises:
        OSError, ValueError: no video that FFmpeg opens.
    """
    film = Film(video)
    for moment in sorted(set(seconds)):
        frame = film.find(moment)
        if frame is not None:
            yield moment, encode_frame(frame, height)


def draw_poster(video: bytes, *, height: int) -> tuple[float, bytes]:
    """Give (moment, JPEG) of one frame from about the middle, to know the video by. Raises as draw_frames does."""
    film = Film(video)
    frame = film.wind_to(film.duration_seconds / 2)
    return film.seconds, encode_frame(frame, height)


class Film:
    """A video wound to one of its frames.

    Attributes:
        decoded_since_seek: how many frames were decoded since the last jump, or since the beginning.
    """

    def __init__(self, video: bytes) -> None:
        self._video = video
        self._origin = self._at = 0.0
        self._wind_back()
        self._origin = self._at
        self._at = 0.0
        self._seeks = True

    @property
    def seconds(self) -> float:
        """When the frame it is wound to begins."""
        return self._at

    @property
    def duration_seconds(self) -> float:
        """As the container states it; 0 if it does not."""
        return float(self._container.duration or 0) / 1_000_000

    def find(self, seconds: float) -> VideoFrame | None:
        """The frame that begins at `seconds`, not before the one found last; None if there is none."""
        frame = self.wind_to(seconds)
        return frame if abs(self._at - seconds) <= SAME_SECONDS else None

    def wind_to(self, seconds: float) -> VideoFrame:
        """The first frame from `seconds` on, or the last of all."""
        if self._seeks and seconds - self._at > SEEK_FROM_SECONDS:
            self._seek(seconds)
        while self._at < seconds - SAME_SECONDS and self._advance():
            pass
        return self._frame

    def _wind_back(self) -> None:
        import av

        self._container = av.open(
            io.BytesIO(self._video),
            mode="r",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "none"},
            metadata_errors="replace",
            io_open=_refuse_open,
        )
        stream: Any = self._container.streams.best("video")
        if stream is None:
            raise ValueError("there is no picture in it")
        self._stream = stream
        self._stream.thread_type = "AUTO"
        self._restart()
        if not self._advance():
            raise ValueError("there is no frame in it")

    def _restart(self) -> None:
        self._frames: Iterator[VideoFrame] = self._container.decode(self._stream)
        self.decoded_since_seek = 0

    def _advance(self) -> bool:
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._frame = frame
        # Raw streams carry no times; the server spaces their frames evenly, too.
        own = frame.time
        at = own if own is not None else self.decoded_since_seek / float(self._stream.average_rate or 25)
        self._at = float(at) - self._origin
        self.decoded_since_seek += 1
        return True

    def _seek(self, seconds: float) -> None:
        """Jump to ahead of `seconds`; where the container cannot, walk there from the beginning."""
        before = self._at
        target = (seconds - LEAD_SECONDS + self._origin) / float(self._stream.time_base)
        try:
            self._container.seek(round(target), stream=self._stream)
            self._restart()
            landed = self._advance() and self._frame.pts is not None and before - LEAD_SECONDS <= self._at <= seconds
        except (OSError, ValueError):
            landed = False
        if not landed:
            self._seeks = False
            self._wind_back()


def encode_frame(frame: Any, height: int) -> bytes:
    """The frame turned upright, as a JPEG of that height. Pixels count as square: so the networks take them, too."""
    turned = frame.rotation % 180 != 0
    scale = height / (frame.width if turned else frame.height)
    picture = frame.to_image(width=max(1, round(frame.width * scale)), height=max(1, round(frame.height * scale)))
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=JPEG_QUALITY)
    return target.getvalue()


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> io.BytesIO:
    raise OSError("opening anything but the given bytes is not allowed")


def main() -> None:
    """Fill the order on stdin; a frame is written as soon as it is drawn."""
    order = json.loads(sys.stdin.buffer.readline())
    video, height = sys.stdin.buffer.read(), order["height"]
    moments = order["seconds"]
    drawn = [draw_poster(video, height=height)] if moments is None else draw_frames(video, moments, height=height)
    for seconds, jpeg in drawn:
        sys.stdout.write(json.dumps({"seconds": seconds, "jpeg": base64.b64encode(jpeg).decode()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
