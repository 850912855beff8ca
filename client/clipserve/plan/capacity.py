"""What one server can do: its videos a second, and how long it takes for one request alone.

Each function adds its arithmetic to `steps`, and returns the cores of a server, its videos a second, and the
milliseconds of a request alone (p95 where that was measured).
"""

from clipserve.errors import InvalidRequest
from clipserve.plan.arithmetic import Step, step_of
from clipserve.plan.costs import (
    decode_cost,
    decode_growth_with_clips,
    gpu_decode_rate,
    gpu_network_rate,
    more_clips_cost,
    network_cost,
)
from clipserve.plan.figures import load_figures
from clipserve.plan.load_test import LoadTestFindings
from clipserve.plan.workload import Workload

DEFAULT_CORES = 16
MAX_MEASURED_CORES = 2


def plan_cpu(workload: Workload, steps: list[Step]) -> tuple[int, float, float]:
    """Cores of a server, its videos a second, and the milliseconds of one request alone."""
    service = load_figures()["service"]
    decode, network = decode_cost(workload), network_cost(workload)
    steps += [step_of("decoding", decode, "core s"), step_of("network, one clip", network, "core s")]
    cost, more = service["overhead"] * (decode.value + network.value), 0.0
    how = f"{service['overhead']} x ({decode.value:.3f} + {network.value:.3f})"
    if workload.clips > 1:
        extra = more_clips_cost(workload)
        steps.append(step_of(f"{workload.clips - 1} clips more", extra, "core s"))
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
    threads = min(cores, MAX_MEASURED_CORES)
    alone = (decode.value + (network.value + more) / threads) * 1000
    how = f"{latency['p95_over_p50']} x (decoding on 1 core + networks on {threads})"
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


def plan_gpu(workload: Workload, steps: list[Step]) -> tuple[int, float, float]:
    figures = load_figures()["gpu"]
    decode, network = gpu_decode_rate(workload), gpu_network_rate(workload)
    growth = decode_growth_with_clips(workload)
    steps += [step_of("decoding", decode, "videos/s"), step_of("network", network, "clips/s")]
    cores = workload.cores or figures["cores"]
    decoding = decode.value / growth.value * figures["whole_over_decode"] * cores / figures["cores"]
    remark = "the whole service was not measured with NVDEC"
    how = f"{decode.value:.1f} x {figures['whole_over_decode']}"
    if cores != figures["cores"]:
        how += f" x {cores} / {figures['cores']}"
        remark += f", with {figures['cores']} cores; {cores} are taken to decode in proportion"
    if workload.clips > 1:
        how += f" / {growth.value:.2f} for {workload.clips} clips"
        steps.append(step_of(f"decoding of {workload.clips} clips", growth, "times as long"))
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


def read_findings(workload: Workload, findings: LoadTestFindings, steps: list[Step]) -> tuple[int, float, float]:
    if findings.model != workload.model:
        raise InvalidRequest(
            f"model is {workload.model!r}, and the load test is of {findings.model!r}: give --model {findings.model},"
            f" or a load test of {workload.model}"
        )
    if workload.clips > 1:
        raise InvalidRequest(
            f"clips is {workload.clips}, and a load test sends requests for one clip of each video: plan one clip, or"
            " plan by the built-in figures, without --measured"
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
