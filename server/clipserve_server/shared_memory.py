"""How much shared memory (/dev/shm) a server needs, and the limits for the decode step when there is less.

Each stub of Triton's Python backend has a region there for its inputs and outputs: videos and clips in the decode step,
and the clips again in the networks, because the substitute backends are stubs, too. Regions grow and never shrink.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from clipserve_host.cores import available_cores
from clipserve_host.decode_step import (
    MAX_CLIPS,
    MAX_VIDEO_BYTES,
    MAX_WAITING,
    MAX_WAITING_MEGABYTES,
    NVDEC,
    shared_memory_bytes,
)
from clipserve_server.repository import ServedModel

FOLDER = Path("/dev/shm")
MIB = 2**20
# The region of a stub that has done nothing yet.
REGION_BYTES = MIB
# A region without enough room grows by the whole size that is asked for, whatever is free in it. Measured: after 38, 12
# and 6 MB, a request of 94 MB makes it 157 MB.
GROWTH = 2
# The size of most videos. The limit of clips is lowered first, so that files of this size fit.
VIDEO_BYTES = 8 * MIB


@dataclass(frozen=True)
class Network:
    """A network of a model.

    Attributes:
        model: the public model.
        clip: the decode step's output that the network takes.
        clip_bytes: bytes of one clip.
        max_clips: clips of one video.
        batch: videos in one run.
        instances: processes that run it.
    """

    model: str
    clip: str
    clip_bytes: int
    max_clips: int
    batch: int
    instances: int

    def clips(self, largest: int) -> int:
        """How many clips of one video are allowed, when they may have `largest` bytes together; at least one."""
        return max(1, min(self.max_clips, largest // self.clip_bytes))


@dataclass(frozen=True)
class Load:
    """The limits of the decode step: bytes of a video's clips, bytes of its file, MiB of videos that wait."""

    clip_bytes: int
    video_bytes: int
    waiting_megabytes: int


@dataclass(frozen=True)
class Demand:
    """What a server's models may put into shared memory.

    decoders: workers, and videos that NVDEC decodes at a time. most: the limits of the decode step's config.
    max_waiting: videos that may wait there.
    """

    networks: Sequence[Network]
    decoders: int
    most: Load
    max_waiting: int

    def bytes_for(self, load: Load) -> int:
        """The size that the regions may reach with these limits."""
        clips = [network.clips(load.clip_bytes) * network.clip_bytes for network in self.networks]
        in_networks = sum(
            network.instances * network.batch * size for network, size in zip(self.networks, clips, strict=True)
        )
        # Decoded clips are in shared memory only while they are sent, by the thread of each worker or NVDEC stream.
        videos = load.waiting_megabytes * MIB + self.decoders * load.video_bytes
        stubs = 1 + sum(network.instances for network in self.networks)
        return stubs * REGION_BYTES + GROWTH * (in_networks + self.decoders * max(clips) + videos)

    def estimate(self) -> int:
        """Bytes of /dev/shm for as many requests as may wait, with one clip each."""
        clip = max(network.clip_bytes for network in self.networks)
        videos = self.max_waiting + self.decoders
        return shared_memory_bytes(videos, video_bytes=VIDEO_BYTES, views=1, clip_bytes=clip)

    def fit(self, free: int) -> Load:
        """The highest limits that fit into `free` bytes; where hardly anything fits, the lowest that make sense."""
        sizes = {n * network.clip_bytes for network in self.networks for n in range(1, network.max_clips + 1)}
        for clip_bytes in sorted(sizes, reverse=True):
            videos = (free - self.bytes_for(Load(clip_bytes, 0, 0))) // GROWTH
            video = min(videos // (1 + self.decoders), self.most.video_bytes)
            if video >= min(VIDEO_BYTES, self.most.video_bytes):
                break
        video = max(video, MIB)
        waiting = max(videos - self.decoders * video, MIB) // MIB
        return Load(clip_bytes, video, min(waiting, self.most.waiting_megabytes))


@dataclass(frozen=True)
class Room:
    """The shared memory that a server needs, and what is free of it."""

    demand: Demand
    free: int

    def limits(self) -> dict[str, str]:
        """The parameters of the decode step that must be lower than in its config."""
        load, most = self.demand.fit(self.free), self.demand.most
        limits: dict[str, str] = {}
        if load.video_bytes < most.video_bytes:
            limits["max_bytes"] = str(load.video_bytes)
        if load.waiting_megabytes < most.waiting_megabytes:
            limits["max_waiting_megabytes"] = str(load.waiting_megabytes)
        for network in self.demand.networks:
            if network.clips(load.clip_bytes) < network.max_clips:
                limits[f"MAX_{network.clip}"] = str(network.clips(load.clip_bytes))
        return limits

    def notice(self) -> str | None:
        """A warning for the operator; None where shared memory has room for all that the config allows."""
        if not self.limits():
            return None
        demand, load = self.demand, self.demand.fit(self.free)
        needed = -(-demand.bytes_for(demand.most) // MIB)
        clips = ", ".join(f"{network.model} {network.clips(load.clip_bytes)}" for network in demand.networks)
        return (
            f"{FOLDER} has {self.free // MIB} MiB free. The largest requests that this server allows need {needed} MiB;"
            f" {demand.max_waiting + demand.decoders} videos of {VIDEO_BYTES // MIB} MiB with one clip each need"
            f" {-(-demand.estimate() // MIB)} MiB. So a video may have {load.video_bytes // MIB} MiB,"
            f" {load.waiting_megabytes} MiB of videos may wait, and a video may have this many clips (views x crops):"
            f" {clips}. More room: mount -o remount,size={needed}m {FOLDER}, or docker run --shm-size={needed}m"
        )


def measure_room(
    repository: Path, models: Sequence[ServedModel], *, decoder: str | None = None, nvdec_gpus: int = 0
) -> Room | None:
    """For a server of these models on this machine. None when their configs cannot be read; Triton reports that.

    decoder: auto, cpu or nvdec. None: as the decode step's config says. nvdec_gpus: GPUs whose NVDEC could decode.
    """
    try:
        demand = read_demand(repository, models, decoder=decoder, nvdec_gpus=nvdec_gpus)
    except (OSError, ValueError, KeyError, text_format.ParseError):
        return None
    return Room(demand, shutil.disk_usage(FOLDER).free) if demand.networks else None


def read_demand(
    repository: Path, models: Sequence[ServedModel], *, decoder: str | None = None, nvdec_gpus: int = 0
) -> Demand:
    """Read the configs. For the arguments see measure_room.

    Raises ValueError, KeyError, OSError or ParseError when `export` did not write them.
    """
    values = {name: value.string_value for name, value in _read_config(repository, "decode").parameters.items()}
    networks = [network for model in models for network in _networks(repository, model.name, values)]
    most = Load(
        max((network.max_clips * network.clip_bytes for network in networks), default=0),
        int(values.get("max_bytes", MAX_VIDEO_BYTES)),
        int(values.get("max_waiting_megabytes", MAX_WAITING_MEGABYTES)),
    )
    workers = int(values.get("workers", "0")) or available_cores()
    processes, streams, _ = (int(values.get(name, default)) for name, default in NVDEC.items())
    has_nvdec = (decoder or values.get("decoder")) != "cpu"
    decoders = workers + nvdec_gpus * processes * streams * has_nvdec
    return Demand(networks, decoders, most, int(values.get("max_waiting", MAX_WAITING)))


def _networks(repository: Path, model: str, values: Mapping[str, str]) -> Iterator[Network]:
    """The networks of an ensemble. values: parameters of the decode step."""
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
                    max_clips=int(values.get(f"MAX_{name}", MAX_CLIPS)),
                    batch=max(1, config.max_batch_size),
                    instances=max(1, sum(group.count for group in config.instance_group)),
                )


def _read_config(repository: Path, name: str) -> pb.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text(), pb.ModelConfig())
