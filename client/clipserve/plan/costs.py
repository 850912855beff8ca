"""What one video costs: processor time on a CPU, time of the decoders and of the network on a GPU server."""

from typing import Any

from clipserve.errors import InvalidRequest
from clipserve.plan.figures import Figure, interpolate, load_figures
from clipserve.plan.workload import Workload

# 340 x 256, ten seconds: what growth with length and clips was measured with.
MEASURED_PIXELS, MEASURED_SECONDS = 340 * 256, 10.0
MEASURED_MODEL = "x3d_m"
FRAMES_OF_A_COLUMN = {16: "milliseconds_16", 32: "milliseconds_32"}


def decode_cost(workload: Workload) -> Figure:
    """Core seconds to decode one video for one clip."""
    figures = load_figures()["decode"]
    column = FRAMES_OF_A_COLUMN[32 if _frames(workload) > 16 else 16]
    at_ten, beyond = _decode_milliseconds(workload.codec, workload.pixels, column)
    growth, too_long = length_growth(workload.seconds)
    ten_seconds = f"{at_ten:.0f} ms for ten seconds of {workload.codec} {workload.size}"
    text = f"{ten_seconds}, x {growth:.2f} for {workload.seconds:g} s"
    remarks = []
    if beyond:
        remarks.append(f"{workload.codec} was measured {_describe_sizes(workload.codec)}")
    if too_long:
        remarks.append("lengths were measured from 5 to 120 s; frames are few, so longer videos cost hardly more")
    return Figure(at_ten / 1000 * growth, text, f"{figures['source']}; {figures['machine']}", "; ".join(remarks))


def length_growth(seconds: float) -> tuple[float, bool]:
    """How much longer decoding takes than for ten seconds, and whether that goes beyond what was measured.

    Only what the chosen frames depend on is decoded, so the cost grows slower than the length.
    """
    points = [(float(length), p50) for length, p50 in load_figures()["length"]["p50_seconds"].items()]
    p50, beyond = interpolate(points, seconds, beyond="flat" if seconds > MEASURED_SECONDS else "line")
    at_ten, _ = interpolate(points, MEASURED_SECONDS)
    decode, _ = _decode_milliseconds("h264", MEASURED_PIXELS, FRAMES_OF_A_COLUMN[16])
    return max(1 + (p50 - at_ten) * 1000 / decode, 0.1), beyond


def network_cost(workload: Workload) -> Figure:
    """Core seconds of the network for one clip, on a CPU."""
    figures = load_figures()["cpu_networks"]
    milliseconds, remark = _of_model(figures["milliseconds"][workload.precision], workload.model, proportional=True)
    text = f"{milliseconds:.1f} ms on {figures['threads']} cores, {workload.precision}"
    return Figure(milliseconds / 1000 * figures["threads"], text, f"{figures['source']}; {figures['machine']}", remark)


def more_clips_cost(workload: Workload) -> Figure:
    """Core seconds for the clips of a video beyond its first, decoding included."""
    figures = load_figures()["clips"]
    points = [(float(clips), p50) for clips, p50 in figures["p50_seconds"].items()]
    more = interpolate(points, workload.clips)[0] - interpolate(points, 1)[0]
    networks = load_figures()["cpu_networks"]["milliseconds"][workload.precision]
    ratio = (
        _of_model(networks, workload.model, proportional=True)[0]
        / load_figures()["cpu_networks"]["milliseconds"]["bf16"][MEASURED_MODEL]
    )
    text = f"{more:.2f} s on {figures['cores']} cores with {MEASURED_MODEL} x {ratio:.2f} for {workload.model}"
    remark = "" if workload.model == MEASURED_MODEL else f"clips were measured with {MEASURED_MODEL}"
    return Figure(more * figures["cores"] * ratio, text, f"{figures['source']}; {figures['machine']}", remark)


def gpu_decode_rate(workload: Workload) -> Figure:
    """Videos a second that a GPU server decodes, with one clip each."""
    figures = load_figures()["gpu"]
    with_nvdec = figures["decode"]["nvdec"].get(workload.codec)
    remarks = []
    # Seconds a video grow with the pixels, rates do not shrink in a line.
    table = with_nvdec or figures["decode"]["cpu"]["h264"]
    points = [(float(width * height), 1 / rate) for width, height, rate in table]
    seconds, beyond = interpolate(points, workload.pixels)
    if len(points) == 1 and beyond:
        seconds = points[0][1] * workload.pixels / points[0][0]
    if beyond:
        remarks.append(f"measured at {', '.join(f'{width} x {height}' for width, height, _ in table)}")
    if not with_nvdec:
        column = FRAMES_OF_A_COLUMN[16]
        ratio = (
            _decode_milliseconds(workload.codec, workload.pixels, column)[0]
            / _decode_milliseconds("h264", workload.pixels, column)[0]
        )
        seconds *= ratio
        remarks.append(f"NVDEC takes no {workload.codec} here: the rate of H.264 on 16 cores, divided by {ratio:.2f}")
    growth, _ = length_growth(workload.seconds)
    if growth != 1:
        remarks.append(f"ten seconds were measured; {workload.seconds:g} s take {growth:.2f} times as long on a CPU")
    how = "NVDEC and 16 cores" if with_nvdec else "16 cores"
    text = f"{1 / seconds:.1f} a second of {workload.codec} {workload.size} by {how}, / {growth:.2f}"
    return Figure(1 / (seconds * growth), text, f"{figures['decode_source']}; {figures['machine']}", "; ".join(remarks))


def gpu_network_rate(workload: Workload) -> Figure:
    """Clips a second of the network on one GPU."""
    figures = load_figures()["gpu"]
    rate, remark = _of_model(figures["clips_a_second"], workload.model, proportional=False)
    text = f"{rate:.0f} clips a second"
    return Figure(rate, text, f"{figures['network_source']}; {figures['machine']}", remark)


def _frames(workload: Workload) -> int:
    from clipserve_export.specs import SPECS

    return SPECS[workload.model].geometry.frames


def _decode_milliseconds(codec: str, pixels: int, column: str) -> tuple[float, bool]:
    rows = _decode_rows(codec)
    points = [(float(row["width"] * row["height"]), float(row[column])) for row in rows]
    if len(points) == 1:  # in proportion to the pixels
        return points[0][1] * pixels / points[0][0], pixels != points[0][0]
    return interpolate(points, pixels)


def _decode_rows(codec: str) -> list[dict[str, Any]]:
    figures = load_figures()["decode"]
    rows = [dict(zip(figures["columns"], row, strict=True)) for row in figures["rows"]]
    return [row for row in rows if row["codec"] == codec]


def _describe_sizes(codec: str) -> str:
    sizes = [f"{row['width']} x {row['height']}" for row in _decode_rows(codec)]
    return f"at {sizes[0]}" if len(sizes) == 1 else f"from {sizes[0]} to {sizes[-1]}"


def _of_model(measured: dict[str, float], model: str, *, proportional: bool) -> tuple[float, str]:
    """The figure of a model; where it was not measured, by the operations of the most similar one that was."""
    if model in measured:
        return measured[model], ""
    operations = load_figures()["operations"]["gflops"]
    if model == "motion":
        smallest = min((name for name in measured if name in operations), key=lambda name: operations[name])
        return measured[smallest], f"motion was not measured there: the figure of {smallest}, which is larger"
    if model not in operations:
        raise InvalidRequest(
            f"model {model!r} was not measured: run `clipserve loadtest --model {model}` on a server, and give its"
            " folder (--measured)"
        )
    like = "x3d_m" if model.startswith("x3d") else "mvit_base_16x4"
    ratio = operations[model] / operations[like]
    remark = f"{model} was not measured there: {like} by its operations, x {ratio:.2f}"
    return (measured[like] * ratio if proportional else measured[like] / ratio), remark


def decode_growth_with_clips(workload: Workload) -> Figure:
    """How much longer the decoding of all clips of a video takes than that of one."""
    figures = load_figures()["decode"]
    one, _ = _decode_milliseconds(workload.codec, workload.pixels, FRAMES_OF_A_COLUMN[16])
    five, _ = _decode_milliseconds(workload.codec, workload.pixels, "milliseconds_5_clips")
    growth, _ = interpolate([(1.0, 1.0), (5.0, max(five / one, 1.0))], workload.clips)
    remark = "" if workload.clips in (1, 5) else "one and five clips were measured"
    text = f"{five:.0f} ms for five clips, {one:.0f} for one"
    return Figure(growth, text, f"{figures['source']}; {figures['machine']}", remark)
