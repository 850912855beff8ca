"""What /dev/shm must hold, and what the decode step takes where it holds less.

Each stub of Triton's Python backend has a region there for what goes in and out: videos and clips in the decode step,
clips once more in the networks, whose stand-ins are stubs as well. Regions grow and never shrink.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_server.repository import ServedModel

FOLDER = Path("/dev/shm")
# Names the limits to the decode step, as JSON. They stand for those of its config.
LIMITS_VARIABLE = "CLIPSERVE_DECODE_LIMITS"
MIB = 2**20
# Of a stub that has done nothing yet.
REGION_BYTES = MIB
# A region that lacks room grows by all that it is asked for, beside what is free in it (measured: for 94 MB after
# 38, 12 and 6 it is 157 MB).
GROWTH = 2
# What a deployment is measured by, see estimate(); the container's checks have the same.
BACKEND_BYTES = 64 * MIB
# Of a video as most are. Fewer clips of one are taken before its file must be smaller.
VIDEO_BYTES = 8 * MIB
# What the decode step lets in where its config does not say: see its Limits, PoolSettings and Sampling.
MOST_VIDEO_BYTES, MOST_WAITING_MEGABYTES, MOST_WAITING, MOST_CLIPS = 512 * MIB, 2048, 64, 30


@dataclass(frozen=True)
class Network:
    """A step that clips go to. clip: its name in the decode step's config; most_clips: of one video."""

    model: str
    clip: str
    clip_bytes: int
    most_clips: int
    batch: int
    instances: int

    def clips(self, largest: int) -> int:
        """Of one video, where they may have `largest` bytes together; one in any case."""
        return max(1, min(self.most_clips, largest // self.clip_bytes))


@dataclass(frozen=True)
class Load:
    """What is let in at most: bytes of a video's clips, bytes of its file, MiB of videos that wait."""

    clip_bytes: int
    video_bytes: int
    waiting_megabytes: int


@dataclass(frozen=True)
class Demand:
    """What a server's models may put into shared memory.

    most: what the decode step's config lets in. max_waiting: the videos that may wait there.
    """

    networks: Sequence[Network]
    workers: int
    most: Load
    max_waiting: int

    def bytes_for(self, load: Load) -> int:
        """What the regions may grow to."""
        clips = [network.clips(load.clip_bytes) * network.clip_bytes for network in self.networks]
        in_networks = sum(
            network.instances * network.batch * size for network, size in zip(self.networks, clips, strict=True)
        )
        # Decoded clips are there only while they are sent, by each worker's thread.
        videos = load.waiting_megabytes * MIB + self.workers * load.video_bytes
        stubs = 1 + sum(network.instances for network in self.networks)
        return stubs * REGION_BYTES + GROWTH * (in_networks + self.workers * max(clips) + videos)

    def estimate(self, *, video_bytes: int = VIDEO_BYTES, views: int = 1) -> int:
        """Bytes of /dev/shm that let as many requests in as may wait: 64 MiB + (waiting + workers) x (video + views x
        largest clip).
        """
        clip = max(network.clip_bytes for network in self.networks)
        return BACKEND_BYTES + (self.max_waiting + self.workers) * (video_bytes + views * clip)

    def fit(self, free: int) -> Load:
        """The most that `free` bytes hold at any time. Where they hold hardly anything, the least that makes sense."""
        sizes = {n * network.clip_bytes for network in self.networks for n in range(1, network.most_clips + 1)}
        for clip_bytes in sorted(sizes, reverse=True):
            videos = (free - self.bytes_for(Load(clip_bytes, 0, 0))) // GROWTH
            video = min(videos // (1 + self.workers), self.most.video_bytes)
            if video >= min(VIDEO_BYTES, self.most.video_bytes):
                break
        video = max(video, MIB)
        waiting = max(videos - self.workers * video, MIB) // MIB
        return Load(clip_bytes, video, min(waiting, self.most.waiting_megabytes))


@dataclass(frozen=True)
class Room:
    """What a start found."""

    demand: Demand
    free: int

    def limits(self) -> dict[str, str]:
        """Parameters of the decode step that differ from its config."""
        load, most = self.demand.fit(self.free), self.demand.most
        limits: dict[str, str] = {}
        if load.video_bytes < most.video_bytes:
            limits["max_bytes"] = str(load.video_bytes)
        if load.waiting_megabytes < most.waiting_megabytes:
            limits["max_waiting_megabytes"] = str(load.waiting_megabytes)
        for network in self.demand.networks:
            if network.clips(load.clip_bytes) < network.most_clips:
                limits[f"MAX_{network.clip}"] = str(network.clips(load.clip_bytes))
        return limits

    def notice(self) -> str | None:
        """What to tell an operator; None where there is room for all that the config lets in."""
        if not self.limits():
            return None
        demand, load = self.demand, self.demand.fit(self.free)
        needed = -(-demand.bytes_for(demand.most) // MIB)
        clips = ", ".join(f"{network.model} {network.clips(load.clip_bytes)}" for network in demand.networks)
        return (
            f"{FOLDER} has {self.free // MIB} MiB free. All that may be asked of this server needs {needed} MiB;"
            f" {demand.max_waiting + demand.workers} videos of {VIDEO_BYTES // MIB} MiB with one clip each need"
            f" {-(-demand.estimate() // MIB)} MiB. So a video may have {load.video_bytes // MIB} MiB,"
            f" {load.waiting_megabytes} MiB of videos may wait, and this many clips (views x crops) of one video are"
            f" taken: {clips}. More room: mount -o remount,size={needed}m {FOLDER}, or docker run --shm-size={needed}m"
        )


def measure_room(repository: Path, models: Sequence[ServedModel]) -> Room | None:
    """For a server of these models on this machine. None where their configs cannot be read: Triton will say so."""
    try:
        demand = read_demand(repository, models)
    except (OSError, ValueError, KeyError, text_format.ParseError):
        return None
    return Room(demand, shutil.disk_usage(FOLDER).free) if demand.networks else None


def read_demand(repository: Path, models: Sequence[ServedModel]) -> Demand:
    """From the configs. Raises ValueError, KeyError, OSError or ParseError where they are not what export writes."""
    values = {name: value.string_value for name, value in _read_config(repository, "decode").parameters.items()}
    networks = [network for model in models for network in _networks(repository, model.name, values)]
    most = Load(
        max((network.most_clips * network.clip_bytes for network in networks), default=0),
        int(values.get("max_bytes", MOST_VIDEO_BYTES)),
        int(values.get("max_waiting_megabytes", MOST_WAITING_MEGABYTES)),
    )
    workers = int(values.get("workers", "0")) or len(os.sched_getaffinity(0))
    return Demand(networks, workers, most, int(values.get("max_waiting", MOST_WAITING)))


def _networks(repository: Path, model: str, values: Mapping[str, str]) -> Iterator[Network]:
    """The steps of an ensemble that clips go to. values: parameters of the decode step."""
    steps = _read_config(repository, model).ensemble_scheduling.step
    clips = {tensor: name for step in steps if step.model_name == "decode" for name, tensor in step.output_map.items()}
    for step in steps:
        for name in (clips.get(tensor, "") for tensor in step.input_map.values()):
            if name.startswith("CLIP_"):
                geometry = json.loads(values[name])
                config = _read_config(repository, step.model_name)
                yield Network(
                    model=model,
                    clip=name,
                    clip_bytes=geometry["frames"] * geometry["crop"] ** 2 * 3,
                    most_clips=int(values.get(f"MAX_{name}", MOST_CLIPS)),
                    batch=max(1, config.max_batch_size),
                    instances=max(1, sum(group.count for group in config.instance_group)),
                )


def _read_config(repository: Path, name: str) -> pb.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), pb.ModelConfig())
