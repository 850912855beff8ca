"""From what one video costs to servers, cores, GPUs and memory, each step with its arithmetic and its source."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipserve.errors import InvalidRequest
from clipserve.extras import load
from clipserve.plan.costs import (
    decode_cost,
    decode_growth_with_clips,
    gpu_decode_rate,
    gpu_network_rate,
    more_clips_cost,
    network_cost,
)
from clipserve.plan.figures import Figure, load_figures
from clipserve.plan.load_test import LoadTestFindings
from clipserve.plan.workload import Workload

if TYPE_CHECKING:
    from clipserve_export.specs import ModelSpec

DEFAULT_CORES = 16
MAX_MEASURED_CORES = 2
# Of the capacity: a closed loop reaches all of it, and at four times the peak 97 % were answered (growth.md).
BULK_UTILISATION = 0.9
# With a latency to keep: above it, a small error of the rate is a large one of the wait.
MAX_UTILISATION = 0.8
SHARE_IN_TIME = 0.95
MIB = 2**20
BESIDE_NETWORKS_MEGABYTES = 2048  # the server itself and its decode workers; the container's check has the same number
MAX_WAITING = 64  # videos that wait in the decode step: its default


@dataclass(frozen=True)
class Step:
    """One line of the arithmetic.

    Attributes:
        what, value, unit: the result.
        how: the arithmetic.
        source: where its figures come from; "" for arithmetic alone.
        extrapolated: how it goes beyond what was measured; "" where it does not.
    """

    what: str
    value: float
    unit: str
    how: str
    source: str = ""
    extrapolated: str = ""


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
        cores, capacity, alone = _read_findings(workload, findings, steps)
    elif workload.on == "cpu":
        cores, capacity, alone = _plan_cpu(workload, steps)
    else:
        cores, capacity, alone = _plan_gpu(workload, steps)
    utilisation, p95 = _choose_utilisation(workload, findings, capacity, alone, steps)
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


def _plan_cpu(workload: Workload, steps: list[Step]) -> tuple[int, float, float]:
    """Cores of a server, its videos a second, and the milliseconds of one request alone."""
    service = load_figures()["service"]
    decode, network = decode_cost(workload), network_cost(workload)
    steps += [_step("decoding", decode, "core s"), _step("network, one clip", network, "core s")]
    cost, more = service["overhead"] * (decode.value + network.value), 0.0
    how = f"{service['overhead']} x ({decode.value:.3f} + {network.value:.3f})"
    if workload.clips > 1:
        extra = more_clips_cost(workload)
        steps.append(_step(f"{workload.clips - 1} clips more", extra, "core s"))
        more = extra.value
        cost, how = cost + more, f"{how} + {more:.3f}"
    steps.append(Step("a video", cost, "core s", how, f"{service['source']}; {service['machine']}"))
    cores = workload.cores or DEFAULT_CORES
    beyond = f"servers of {MAX_MEASURED_CORES} cores were measured; {cores} are taken to do {cores / 2:g} times as much"
    steps.append(
        Step(
            "a server",
            cores / cost,
            "videos/s",
            f"{cores} cores / {cost:.3f} s",
            extrapolated=beyond if cores > MAX_MEASURED_CORES else "",
        )
    )
    latency = load_figures()["latency"]
    alone = (decode.value + (network.value + more) / MAX_MEASURED_CORES) * 1000
    how = f"{latency['p95_over_p50']} x (decoding on 1 core + networks on {MAX_MEASURED_CORES})"
    steps.append(
        Step(
            "p95 of a request alone",
            alone * latency["p95_over_p50"],
            "ms",
            how,
            f"{latency['source']}; {latency['machine']}",
        )
    )
    return cores, cores / cost, alone * latency["p95_over_p50"]


def _plan_gpu(workload: Workload, steps: list[Step]) -> tuple[int, float, float]:
    figures = load_figures()["gpu"]
    decode, network = gpu_decode_rate(workload), gpu_network_rate(workload)
    growth = decode_growth_with_clips(workload)
    steps += [_step("decoding", decode, "videos/s"), _step("network", network, "clips/s")]
    cores = workload.cores or figures["cores"]
    decoding = decode.value / growth.value * figures["whole_over_decode"] * cores / figures["cores"]
    remark = "the whole service was not measured with NVDEC"
    how = f"{decode.value:.1f} x {figures['whole_over_decode']}"
    if cores != figures["cores"]:
        how += f" x {cores} / {figures['cores']}"
        remark += f", with {figures['cores']} cores; {cores} are taken to decode in proportion"
    if workload.clips > 1:
        how += f" / {growth.value:.2f} for {workload.clips} clips"
        steps.append(_step(f"decoding of {workload.clips} clips", growth, "times as long"))
    steps.append(Step("decoding, in the service", decoding, "videos/s", how, figures["whole_source"], remark))
    networks = network.value / workload.clips
    capacity = min(decoding, networks)
    slower = "decoding" if decoding <= networks else "the network"
    steps.append(
        Step(
            f"a server with one {figures['name']}",
            capacity,
            "videos/s",
            f"{slower} is slower: {decoding:.1f} and {network.value:.0f} / {workload.clips}",
        )
    )
    decode_alone = figures["alone_milliseconds_1080p"] * workload.pixels / (1920 * 1080)
    alone = decode_alone + figures["network_milliseconds"].get(workload.model, 1000 / network.value) * workload.clips
    remark = "" if workload.size == "1920x1080" and workload.clips == 1 else "measured at 1080p with one clip"
    steps.append(Step("a request alone", alone, "ms", "in proportion to the pixels", figures["latency_source"], remark))
    return cores, capacity, alone


def _read_findings(workload: Workload, findings: LoadTestFindings, steps: list[Step]) -> tuple[int, float, float]:
    if findings.model != workload.model:
        raise InvalidRequest(
            f"model is {workload.model!r}, and the load test is of {findings.model!r}: give --model {findings.model},"
            f" or a load test of {workload.model}"
        )
    measured = findings.cores
    cores = workload.cores or measured
    if cores is None:
        raise InvalidRequest(
            "cores is needed, because the load test called a server on another machine: give the number of its cores"
            " (--cores)"
        )
    capacity, beyond = findings.peak, ""
    if measured is not None and cores != measured:
        capacity *= cores / measured
        beyond = f"{measured} cores were tested; {cores} are taken to do {cores / measured:g} times as much"
    how = f"{findings.peak:.4g} in closed loop" + (f" x {cores} / {measured}" if beyond else "")
    steps.append(Step("a server", capacity, "videos/s", f"{how}, videos of the load test", findings.source, beyond))
    return cores, capacity, min((p95 for _, p95 in findings.open_loop), default=findings.alone)


def _choose_utilisation(
    workload: Workload, findings: LoadTestFindings | None, capacity: float, alone: float, steps: list[Step]
) -> tuple[float, float | None]:
    """The share of its capacity at which a server runs, and the p95 there, in milliseconds."""
    wanted = workload.latency
    if wanted is None:
        how = "work that may wait: the queue is never empty"
        steps.append(Step("utilisation", BULK_UTILISATION, "", how))
        return BULK_UTILISATION, None
    if findings is not None and findings.open_loop:
        rate = findings.rate_within(wanted)
        if rate is None:
            raise InvalidRequest(
                f"latency is {wanted:g} ms, and no run of the load test kept that: the best p95 was {alone:.0f} ms"
            )
        utilisation = min(rate / findings.peak, 1.0)
        how = f"{rate:.4g} of {findings.peak:.4g} a second within {wanted:g} ms at p95, measured"
        steps.append(Step("utilisation", utilisation, "", how, findings.source))
        return utilisation, wanted
    if not alone < wanted:
        raise InvalidRequest(
            f"latency is {wanted:g} ms, and one request alone takes about {alone:.0f} ms at p95: more servers do not"
            " change that. Take a smaller model, fewer clips, smaller videos, or another --on"
        )
    utilisation = find_utilisation(capacity, (wanted - alone) / 1000)
    p95 = alone + wait_at(capacity, utilisation) * 1000
    how = f"as high as p95 stays within {wanted:g} ms, at most {MAX_UTILISATION}: {alone:.0f} + wait"
    remark = "the wait follows from queueing theory (M/M/1), which is cautious here; a load test measures it"
    steps.append(Step("utilisation", utilisation, "", how, "", remark))
    steps.append(Step("p95", p95, "ms", f"{alone:.0f} + {p95 - alone:.0f} in the queue"))
    return utilisation, p95


def wait_at(capacity: float, utilisation: float) -> float:
    """Seconds in the queue that 95 % of the requests stay within: M/M/1, ln(utilisation / 0.05) / (capacity - rate)."""
    likely = utilisation / (1 - SHARE_IN_TIME)
    return max(math.log(likely), 0.0) / (capacity * (1 - utilisation))


def find_utilisation(capacity: float, seconds: float) -> float:
    """The highest utilisation, up to MAX_UTILISATION, whose wait is within so many seconds."""
    low, high = 1 - SHARE_IN_TIME, MAX_UTILISATION
    if wait_at(capacity, high) <= seconds:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if wait_at(capacity, middle) <= seconds else (low, middle)
    return low


def _plan_memory(workload: Workload, spec: "ModelSpec", cores: int, steps: list[Step]) -> tuple[int, int]:
    """MiB of /dev/shm and of memory, for one server."""
    from clipserve_export.capacity import clip_bytes, max_clips, max_videos
    from clipserve_server.shared_memory import MAX_VIDEO_BYTES, NVDEC, Demand, Load, Network

    clip = clip_bytes(spec.geometry)
    network = Network(spec.name, spec.geometry.output_name, clip, max_clips(spec), max_videos(spec), 1)
    nvdec = 0 if workload.on == "cpu" else NVDEC["processes"] * NVDEC["streams"]
    demand = Demand([network], cores + nvdec, Load(0, 0, 0), MAX_WAITING)
    file_bytes = round(workload.file_megabytes * MIB)
    if file_bytes > MAX_VIDEO_BYTES:
        raise InvalidRequest(
            f"a file of {workload.file_megabytes:,.0f} MiB is more than a server takes, {MAX_VIDEO_BYTES // MIB} MiB:"
            " say how large the files are (--megabytes), or cut the videos"
        )
    shm = math.ceil(demand.estimate(video_bytes=file_bytes, views=workload.clips) / MIB)
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


def _step(what: str, figure: Figure, unit: str) -> Step:
    return Step(what, figure.value, unit, figure.text, figure.source, figure.extrapolated)
