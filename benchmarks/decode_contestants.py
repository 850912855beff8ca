"""The decoders that decode.py compares: each makes the same square uint8 frames from the same file, on one thread.

`python -m benchmarks.decode_contestants NAME` is the process of one. It needs numpy and that decoder, so torchcodec can
run in an environment of its own.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.processes import answer_orders, redirect_output
from clipserve_server.packages import find_versions

SIDE = 256
PACKETS_ALONE = "packets alone"  # libavcodec on the packets needed, without anything around it
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """Frames to decode from a file, as squares of SIDE pixels.

    Attributes:
        indices: frame numbers, in the order wanted.
        width, height: of the scaled picture that the squares are cut from.
        policy, frames, views: the same frames as clipserve's sampling.
    """

    path: str
    indices: Sequence[int]
    width: int
    height: int
    policy: str
    frames: int
    views: int


def scaled_size(width: int, height: int) -> tuple[int, int]:
    """Width and height with the short side SIDE, as PyTorchVideo's short_side_scale rounds."""
    if width < height:
        return SIDE, floor(height / width * SIDE)
    return floor(width / height * SIDE), SIDE


def decode_with_clipserve(task: Task, data: bytes) -> Pixels:
    """The engine of this repository."""
    from clip_decode import Geometry, Sampling, decode_clips

    geometry = Geometry(task.frames, 5, SIDE, SIDE)
    sampling = Sampling(policy=task.policy, views=task.views)  # type: ignore[arg-type]
    return decode_clips(data, geometry, sampling)[0]


def decode_with_pyav(task: Task, data: bytes) -> Pixels:
    """Every frame decoded, the wanted ones scaled."""
    import av

    wanted = set(task.indices)
    found: dict[int, Pixels] = {}
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                scaled = frame.reformat(task.width, task.height, format="rgb24", threads=1)
                found[number] = _crop(scaled.to_ndarray())
    return np.stack([found[number] for number in task.indices])


def decode_with_torchcodec(task: Task, data: bytes) -> Pixels:
    """Exact seeking, its default; scaling and cropping inside the decoder."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import CenterCrop, Resize

    decoder = VideoDecoder(
        data,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        transforms=[Resize((task.height, task.width)), CenterCrop((SIDE, SIDE))],
    )
    return np.asarray(decoder.get_frames_at(list(task.indices)).data)


def decode_with_decord(task: Task, data: bytes) -> Pixels:
    """Scaling inside the decoder."""
    from decord import VideoReader, cpu

    reader = VideoReader(io.BytesIO(data), ctx=cpu(0), width=task.width, height=task.height, num_threads=1)
    return np.ascontiguousarray(_crop(reader.get_batch(list(task.indices)).asnumpy()))


def decode_with_opencv(task: Task, data: bytes) -> Pixels:
    """Every frame grabbed, the wanted ones retrieved; OpenCV reads the file, not its bytes."""
    import cv2

    cv2.setNumThreads(1)
    wanted = set(task.indices)
    found: dict[int, Pixels] = {}
    capture = cv2.VideoCapture(task.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    for number in range(max(wanted) + 1):
        if not capture.grab():
            break
        if number in wanted:
            image = cv2.resize(capture.retrieve()[1], (task.width, task.height), interpolation=cv2.INTER_AREA)
            found[number] = _crop(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.stack([found[number] for number in task.indices])


def time_packets_alone(task: Task, data: bytes) -> float:
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
    with open_video(data, limits) as video:
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


# Name -> the module that it needs, and its function.
CONTESTANTS: dict[str, tuple[str, Callable[[Task, bytes], Pixels]]] = {
    "clipserve": ("clip_decode", decode_with_clipserve),
    "torchcodec": ("torchcodec.decoders", decode_with_torchcodec),
    "decord": ("decord", decode_with_decord),
    "opencv": ("cv2", decode_with_opencv),
    "pyav": ("av", decode_with_pyav),
}


def _crop(pixels: Pixels) -> Pixels:
    top, left = (pixels.shape[-3] - SIDE) // 2, (pixels.shape[-2] - SIDE) // 2
    return pixels[..., top : top + SIDE, left : left + SIDE, :]


def handle_order(name: str, order: dict[str, Any]) -> dict[str, Any]:
    """Decode once; answers with the processor seconds of all threads, or with the error.

    With "pixels", the frames go to this file. An order with "packages" asks for their versions instead.
    """
    if "packages" in order:
        return find_versions(order["packages"])
    task = Task(**order["task"])
    data = Path(task.path).read_bytes()
    before = peak_mebibytes()
    try:
        started = process_time()
        if name == PACKETS_ALONE:
            return {"seconds": time_packets_alone(task, data)}
        pixels = CONTESTANTS[name][1](task, data)
        seconds = process_time() - started
    except Exception as error:  # whatever a decoder says about a file that it does not take
        return {"seconds": None, "error": f"{type(error).__name__}: {error}"[:200]}
    if order.get("pixels"):
        np.save(order["pixels"], pixels)
    return {"seconds": seconds, "mebibytes": [before, peak_mebibytes()]}


def peak_mebibytes() -> float:
    """Peak memory of this process. Not ru_maxrss, which a child process inherits."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Answer orders."""
    redirect_output()
    name = sys.argv[1]
    importlib.import_module(CONTESTANTS[name][0] if name in CONTESTANTS else "av")
    answer_orders(lambda order: handle_order(name, order))


if __name__ == "__main__":
    main()
