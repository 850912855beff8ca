"""The decoders compared: each makes the same square uint8 frames from the same file, on one thread."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from time import process_time
from typing import Protocol

import numpy as np
import numpy.typing as npt

SIDE = 256


@dataclass(frozen=True)
class Task:
    """Frames to get from a file, as squares of SIDE pixels.

    Attributes:
        path: of the file.
        data: its bytes.
        indices: numbers of the frames wanted, in the order wanted.
        width, height: of the scaled picture the squares are cut from.
        policy, frames, views: the same wish in clipserve's words.
    """

    path: Path
    data: bytes
    indices: Sequence[int]
    width: int
    height: int
    policy: str
    frames: int
    views: int


class Contestant(Protocol):
    """Something that fetches frames."""

    def __call__(self, task: Task) -> npt.NDArray[np.uint8]: ...


def scaled_size(width: int, height: int) -> tuple[int, int]:
    """Short side SIDE, as short_side_scale rounds."""
    if width < height:
        return SIDE, floor(height / width * SIDE)
    return floor(width / height * SIDE), SIDE


def decode_with_clipserve(task: Task) -> npt.NDArray[np.uint8]:
    """The engine of this repository."""
    from clip_decode import Geometry, Sampling, decode_clips

    geometry = Geometry(task.frames, 5, SIDE, SIDE)
    sampling = Sampling(policy=task.policy, views=task.views)  # type: ignore[arg-type]
    return decode_clips(task.data, geometry, sampling)[0]


def decode_with_pyav(task: Task) -> npt.NDArray[np.uint8]:
    """Every frame decoded, the wanted ones scaled."""
    import av

    wanted = set(task.indices)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with av.open(io.BytesIO(task.data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                scaled = frame.reformat(task.width, task.height, format="rgb24", threads=1)
                found[number] = _crop(scaled.to_ndarray())
    return np.stack([found[number] for number in task.indices])


def decode_with_torchcodec(task: Task) -> npt.NDArray[np.uint8]:
    """Exact seeking, its default; scaling and cropping inside the decoder."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import CenterCrop, Resize

    decoder = VideoDecoder(
        task.data,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        transforms=[Resize((task.height, task.width)), CenterCrop((SIDE, SIDE))],
    )
    return np.asarray(decoder.get_frames_at(list(task.indices)).data)


def decode_with_decord(task: Task) -> npt.NDArray[np.uint8]:
    """Scaling inside the decoder."""
    from decord import VideoReader, cpu

    reader = VideoReader(io.BytesIO(task.data), ctx=cpu(0), width=task.width, height=task.height, num_threads=1)
    return np.ascontiguousarray(_crop(reader.get_batch(list(task.indices)).asnumpy()))


def decode_with_opencv(task: Task) -> npt.NDArray[np.uint8]:
    """Every frame grabbed, the wanted ones retrieved; reads the file itself, not its bytes."""
    import cv2

    cv2.setNumThreads(1)
    wanted = set(task.indices)
    found: dict[int, npt.NDArray[np.uint8]] = {}
    capture = cv2.VideoCapture(str(task.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    for number in range(max(wanted) + 1):
        if not capture.grab():
            break
        if number in wanted:
            image = cv2.resize(capture.retrieve()[1], (task.width, task.height), interpolation=cv2.INTER_AREA)
            found[number] = _crop(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.stack([found[number] for number in task.indices])


def time_packets_alone(task: Task) -> float:
    """CPU seconds that libavcodec takes for the packets that the wanted frames depend on, and nothing else.

    The floor of every exact decoder on the same libraries: no demuxing, no conversion, no scaling.
    """
    from clip_decode import Geometry, Limits, Sampling
    from clip_decode.demux.container import open_video
    from clip_decode.demux.packets import read_packets
    from clip_decode.dependencies.analysis import analyze_dependencies
    from clip_decode.dependencies.packet_dependencies import DependenciesUnknown
    from clip_decode.plan.decode_plan import plan_segments
    from clip_decode.plan.frame_selection import select_frames
    from clip_decode.plan.timeline import build_timeline

    limits = Limits()
    with open_video(task.data, limits) as video:
        index = read_packets(video, limits)
        context = video.stream.codec_context
        try:
            dependencies = analyze_dependencies(index, context, video.container_name)
        except DependenciesUnknown:
            segments: list[Sequence[int]] = [range(len(index.packets))]
        else:
            geometry = {"clip": Geometry(task.frames, 5, SIDE, SIDE)}
            sampling = Sampling(policy=task.policy, views=task.views)  # type: ignore[arg-type]
            timeline = build_timeline(index, dependencies.display_order, limits)
            wanted = select_frames(timeline, geometry, sampling).wanted
            segments = [segment.packets for segment in plan_segments(dependencies, wanted)]
        started = process_time()
        for place, packets in enumerate(segments):
            if place:
                context.flush_buffers()
            for number in packets:
                context.decode(index.packets[number])
            context.decode(None)
        return process_time() - started


CONTESTANTS: dict[str, Contestant] = {
    "clipserve": decode_with_clipserve,
    "torchcodec": decode_with_torchcodec,
    "decord": decode_with_decord,
    "opencv": decode_with_opencv,
    "pyav": decode_with_pyav,
}


def _crop(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    top, left = (pixels.shape[-3] - SIDE) // 2, (pixels.shape[-2] - SIDE) // 2
    return pixels[..., top : top + SIDE, left : left + SIDE, :]


def lend_ffmpeg() -> None:
    """Start again with PyAV's FFmpeg where torchcodec, which brings none, finds it.

    So both decode with the very same libraries.
    """
    if "CLIPSERVE_LENT_FFMPEG" in os.environ:
        return
    import re
    import tempfile
    from importlib.util import find_spec

    spec = find_spec("av")
    assert spec is not None
    assert spec.origin is not None
    libraries = Path(spec.origin).parents[1] / "av.libs"
    folder = Path(tempfile.mkdtemp(prefix="ffmpeg-"))
    for library in libraries.glob("lib*.so*"):
        name = re.sub(r"-[0-9a-f]{8}", "", library.name)
        (folder / re.sub(r"(\.so\.\d+).*", r"\1", name)).symlink_to(library)
    paths = [str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {
        **os.environ,
        "CLIPSERVE_LENT_FFMPEG": str(folder),
        "LD_LIBRARY_PATH": ":".join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)
