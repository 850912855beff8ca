"""The work to plan: the number and kind of videos, the model, the kind of server."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from clipserve.arguments import Argument, CheckedArguments
from clipserve.checks import check_choice, check_int, read_float
from clipserve.connection import check_model
from clipserve.errors import InvalidRequest
from clipserve.options import MAX_CLIPS

Codec: TypeAlias = Literal["h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2"]
Processor: TypeAlias = Literal["cpu", "h100"]
Precision: TypeAlias = Literal["bf16", "fp32"]

DAY_SECONDS = 86_400
# Beyond them the arithmetic ends in infinity, or in nothing.
LEAST, MOST = 1e-6, 1e12
# What the decode step takes, unless its config says otherwise: see Limits of clip_decode.
MAX_SECONDS, MAX_PIXELS = 4 * 3600, 8192 * 4352
MAX_CORES, MAX_SERVERS = 1024, 1_000_000
BITS_A_PIXEL = 0.1  # of a second's frames at 30 fps, where the size of a file is not given: 2.8 Mbit/s for 720p
_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")


def check_amount(name: str, value: object, *, most: float = MOST) -> float:
    """Accept a number above 0."""
    if (number := read_float(value)) is None or not LEAST <= number <= most:
        raise InvalidRequest(f"{name} must be a number above 0, from {LEAST:f} to {most:,.0f}; got {value!r}")
    return number


def check_size(name: str, value: object) -> str:
    """Accept WIDTHxHEIGHT."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidRequest(f"{name} must be WIDTHxHEIGHT in pixels, such as 1280x720; got {value!r}")
    if (pixels := int(found[1]) * int(found[2])) > MAX_PIXELS:
        raise InvalidRequest(f"{name} is {value}, {pixels:,} pixels, but a server takes {MAX_PIXELS:,} (8K UHD)")
    return found[0]


@dataclass(frozen=True, kw_only=True)
class Workload(CheckedArguments):
    """Videos to classify, and the servers that classify them.

    The amount of work is one of: `rate`; `per_day`; `videos` in `hours`; or the capacity of `servers`, with or without
    a number of `videos`.
    """

    rate: Annotated[float | None, Argument("videos a second", check_amount, metavar="N")] = None
    per_day: Annotated[float | None, Argument("videos a day, at a constant rate", check_amount, metavar="N")] = None
    videos: Annotated[
        float | None, Argument("number of videos; needs --hours or --servers", check_amount, metavar="N")
    ] = None
    hours: Annotated[float | None, Argument("time for --videos", check_amount, metavar="HOURS")] = None
    servers: Annotated[
        int | None,
        Argument(
            "number of servers that you have; the plan says their rate, and how long --videos take",
            partial(
                check_int, allowed=range(1, MAX_SERVERS + 1), described=f"a whole number from 1 to {MAX_SERVERS:,}"
            ),
            metavar="N",
        ),
    ] = None
    size: Annotated[str, Argument("width and height of a frame in pixels", check_size, metavar="WIDTHxHEIGHT")] = (
        "1280x720"
    )
    codec: Annotated[Codec, Argument("codec of the videos", partial(check_choice, choices=Codec))] = "h264"
    seconds: Annotated[
        float, Argument("length of a video", partial(check_amount, most=MAX_SECONDS), metavar="SECONDS")
    ] = 10.0
    megabytes: Annotated[
        float | None,
        Argument(
            "size of a file in MiB; default: from --size and --seconds, at 0.1 bit a pixel",
            partial(check_amount, most=2047),
            metavar="MIB",
        ),
    ] = None
    model: Annotated[
        str, Argument("a published model, or with --measured one of your own", check_model, metavar="NAME")
    ] = "x3d_m"
    clips: Annotated[
        int,
        Argument(
            "clips of a video: views x crops",
            partial(check_int, allowed=range(1, MAX_CLIPS + 1), described=f"a whole number from 1 to {MAX_CLIPS}"),
            metavar="N",
        ),
    ] = 1
    latency: Annotated[
        float | None,
        Argument(
            "95 % of the requests must have an answer within this time, in milliseconds", check_amount, metavar="MS"
        ),
    ] = None
    on: Annotated[Processor, Argument("device of the networks", partial(check_choice, choices=Processor))] = "cpu"
    cores: Annotated[
        int | None,
        Argument(
            "cores of a server",
            partial(check_int, allowed=range(1, MAX_CORES + 1), described=f"a whole number from 1 to {MAX_CORES:,}"),
            metavar="N",
            default="16, or those of the load test",
        ),
    ] = None
    precision: Annotated[
        Precision,
        Argument(
            "precision of the networks on a CPU; bf16 needs a CPU that supports it",
            partial(check_choice, choices=Precision),
        ),
    ] = "bf16"
    price: Annotated[
        float | None, Argument("price of a server for an hour, in any currency", check_amount, metavar="PRICE")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("rate", "per_day", "hours", "servers") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none of them"
            raise InvalidRequest(
                f"give exactly one of --rate, --per-day, --hours (with --videos) and --servers; got {got}"
            )
        if given[0] == "hours" and self.videos is None:
            raise InvalidRequest("--hours needs --videos, the number of videos to classify in this time")
        if given[0] in ("rate", "per_day") and self.videos is not None:
            raise InvalidRequest("--videos needs --hours or --servers; got it with a rate")

    @property
    def wanted_rate(self) -> float | None:
        """Videos a second; None where `servers` says how many there are."""
        if self.per_day is not None:
            return self.per_day / DAY_SECONDS
        if self.hours is not None and self.videos is not None:
            return self.videos / (self.hours * 3600)
        return self.rate

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.size.partition("x")[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.size.partition("x")[2])

    @property
    def pixels(self) -> int:
        """Of a picture."""
        return self.width * self.height

    @property
    def file_megabytes(self) -> float:
        """MiB of a file."""
        if self.megabytes is not None:
            return self.megabytes
        return BITS_A_PIXEL * self.pixels * 30 * self.seconds / 8 / 2**20

    def describe(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}
