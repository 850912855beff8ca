"""From what one video costs to servers, cores, GPUs and memory, each step with its arithmetic and its source."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.errors import InvalidRequest
from clipserve.extras import load
from clipserve.plan.arithmetic import Step
from clipserve.plan.capacity import plan_cpu, plan_gpu, read_findings
from clipserve.plan.load_test import LoadTestFindings
from clipserve.plan.utilisation import choose_utilisation
from clipserve.plan.workload import Workload

if TYPE_CHECKING:
    from clipserve_export.specs import ModelSpec

MIB = 2**20
BESIDE_NETWORKS_MEGABYTES = 2048  # the server itself and its decode workers; the container's check has the same number


@dataclass(frozen=True)
class Plan:
    """What the work needs."""

    workload: dict[str, Any]
    servers: int
    cores: int
    gpus: int
    workers: int
    shm_megabytes: int
    memory_megabytes: int
    rate: float
    capacity: float
    utilisation: float
    p95_milliseconds: float | None
    steps: list[Step] = field(default_factory=list)

    @property
    def extrapolations(self) -> list[str]:
        """How the plan goes beyond what was measured."""
        return list(dict.fromkeys(step.extrapolated for step in self.steps if step.extrapolated))

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "extrapolations": self.extrapolations}


def make_plan(
    workload: Workload, findings: LoadTestFindings | None = None, *, repository: Path = Path("model_repository")
) -> Plan:
    """Plan the work, by the committed figures or by the findings of a load test.

    Args:
        workload: what is to be done.
        findings: of a load test of its model.
        repository: has the contract of a model of your own.

    Raises:
        InvalidRequest: there is no such model, one of your own has no load test, the load test is of another model, or
            no number of such servers can keep the latency.
    """
    spec = _find_model(workload.model, findings, repository)
    steps: list[Step] = []
    wanted = workload.wanted_rate
    if wanted is not None:
        steps.append(Step("wanted", wanted, "videos/s", _describe_rate(workload)))
    if findings is not None:
        cores, capacity, alone = read_findings(workload, findings, steps)
    elif workload.on == "cpu":
        cores, capacity, alone = plan_cpu(workload, steps)
    else:
        cores, capacity, alone = plan_gpu(workload, steps)
    utilisation, p95 = choose_utilisation(workload, findings, capacity, alone, steps)
    servers, rate = _count_servers(workload, capacity * utilisation, steps)
    shm, memory = _plan_memory(workload, spec, cores, steps)
    _plan_network(workload, rate, steps)
    _plan_price(workload, servers, rate, steps)
    gpu = workload.on != "cpu" and findings is None
    return Plan(
        workload=workload.describe(),
        servers=servers,
        cores=servers * cores,
        gpus=servers if gpu else 0,
        workers=cores,
        shm_megabytes=shm,
        memory_megabytes=memory,
        rate=rate,
        capacity=capacity,
        utilisation=utilisation,
        p95_milliseconds=p95,
        steps=steps,
    )


def _find_model(name: str, findings: LoadTestFindings | None, repository: Path) -> "ModelSpec":
    """The model of this name: one that can be exported by name, or one of `repository`. Raises InvalidRequest."""
    from clipserve_export.specs import SPECS

    if name in SPECS:
        return SPECS[name]
    if findings is None:
        raise InvalidRequest(
            f"model is one of {', '.join(SPECS)}; got {name!r}. A model of your own was not measured: run `clipserve"
            f" loadtest --model {name}` on a server, and give its folder (--measured)"
        )
    specs: dict[str, ModelSpec] = load("clipserve_export.repository", "export").read_specs(repository)
    if name not in specs:
        raise InvalidRequest(f"{repository} has no model {name!r}: name the repository that has it (--repository)")
    return specs[name]


def _describe_rate(workload: Workload) -> str:
    if workload.per_day is not None:
        return f"{workload.per_day:,.0f} a day / 86,400 s"
    if workload.videos is not None:
        return f"{workload.videos:,.0f} in {workload.hours:g} h"
    return "as given"


def _plan_memory(workload: Workload, spec: "ModelSpec", cores: int, steps: list[Step]) -> tuple[int, int]:
    """MiB of /dev/shm and of memory, for one server."""
    from clipserve_export.capacity import clip_bytes, max_clips, max_videos
    from clipserve_host.decode_step import MAX_VIDEO_BYTES, MAX_WAITING, NVDEC, shared_memory_bytes

    clip = clip_bytes(spec.geometry)
    nvdec = 0 if workload.on == "cpu" else NVDEC["nvdec_processes"] * NVDEC["nvdec_streams"]
    file_bytes = round(workload.file_megabytes * MIB)
    if file_bytes > MAX_VIDEO_BYTES:
        raise InvalidRequest(
            f"a file of {workload.file_megabytes:,.0f} MiB is more than a server takes, {MAX_VIDEO_BYTES // MIB} MiB:"
            " say how large the files are (--megabytes), or cut the videos"
        )
    videos = MAX_WAITING + cores + nvdec
    needed = shared_memory_bytes(videos, video_bytes=file_bytes, views=workload.clips, clip_bytes=clip)
    shm = math.ceil(needed / MIB)
    assumed = (
        "" if workload.megabytes is not None else "the size of a file is an estimate: 0.1 bit a pixel (--megabytes)"
    )
    decoders = f"{cores} + {nvdec}" if nvdec else f"{cores}"
    how = f"64 + ({MAX_WAITING} + {decoders}) x ({workload.file_megabytes:.1f} + {workload.clips} x {clip / MIB:.1f})"
    steps.append(Step("/dev/shm of a server", shm, "MiB", how, "docs/gpu-server.md, Shared memory", assumed))
    if workload.on == "cpu":
        run = max_videos(spec) * max_clips(spec) * spec.clip_megabytes
        how = f"{BESIDE_NETWORKS_MEGABYTES} + {max_videos(spec)} videos x {max_clips(spec)} clips"
        how += f" x {spec.clip_megabytes} + /dev/shm: the largest run that the configs allow"
    else:
        run = 0
        how = f"{BESIDE_NETWORKS_MEGABYTES} + /dev/shm; the GPU's own: 24 GiB, `clipserve export --gpu-memory`"
    memory = BESIDE_NETWORKS_MEGABYTES + run + shm
    steps.append(Step("memory of a server", memory, "MiB", how, "export/clipserve_export/capacity.py"))
    return shm, memory


def _count_servers(workload: Workload, each: float, steps: list[Step]) -> tuple[int, float]:
    """How many servers, of which each does so many videos a second, and the rate: wanted, or of all of them."""
    rate = workload.wanted_rate
    if rate is not None:
        servers = max(1, math.ceil(rate / each - 1e-9))
        steps.append(Step("servers", servers, "", f"{rate:.4g} / {each:.4g}, rounded up"))
        return servers, rate
    assert workload.servers is not None
    rate = workload.servers * each
    steps.append(Step("all servers", rate, "videos/s", f"{workload.servers} x {each:.4g}"))
    if workload.videos is not None:
        hours = workload.videos / rate / 3600
        steps.append(Step("time for all videos", hours, "h", f"{workload.videos:,.0f} / {rate:.4g} / 3,600"))
    return workload.servers, rate


def _plan_network(workload: Workload, rate: float, steps: list[Step]) -> None:
    megabits = rate * workload.file_megabytes * MIB * 8 / 1e6
    steps.append(Step("network to the servers", megabits, "Mbit/s", f"{rate:.4g} x {workload.file_megabytes:.1f} MiB"))


def _plan_price(workload: Workload, servers: int, rate: float, steps: list[Step]) -> None:
    if workload.price is None:
        return
    hourly = f"{servers} x {workload.price:g} an hour"
    if workload.videos is not None:
        hours = workload.hours or workload.videos / rate / 3600
        steps.append(Step("price of all videos", servers * workload.price * hours, "", f"{hourly} x {hours:.4g} h"))
    million = servers * workload.price / (rate * 3600) * 1e6
    steps.append(Step("price of a million videos", million, "", f"{hourly} / {rate:.4g} / 3,600 x 1,000,000"))
