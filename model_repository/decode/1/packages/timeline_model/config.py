"""The config of the model timeline: the parameters of its config.pbtxt, and what the environment lowers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.windows import WindowLimits
from decode_model.config import LIMITS_VARIABLE
from decode_pool.settings import PoolSettings

_MODEL = "MODEL_"


@dataclass(frozen=True)
class ServedNetwork:
    """A network that timelines call.

    Attributes:
        network: its name in Triton.
        geometry: shape of its clips.
        max_clips: clips of one window that it takes.
        max_batch: windows that may share one of its runs.
        instances: how many runs it does side by side.
    """

    network: str
    geometry: Geometry
    max_clips: int
    max_batch: int
    instances: int

    @classmethod
    def from_config(cls, text: str) -> ServedNetwork:
        """Read the parameter MODEL_<name>. Raises ValueError."""
        try:
            values: dict[str, Any] = json.loads(text)
            geometry = Geometry.from_config(values.pop("geometry"))
            return cls(values.pop("network"), geometry, **{name: int(value) for name, value in values.items()})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"a model of timelines needs a network and its geometry, but is {text}") from error


@dataclass(frozen=True)
class TimelineSettings:
    """Each is a parameter of the same name in the config. All are whole numbers.

    Attributes:
        max_timelines: timelines that run at one time; the next one is answered `busy`.
        max_timeline_seconds: length of a video.
        max_timeline_windows: windows of a video.
        max_shared_megabytes: MiB of scaled frames that overlapping windows share.
        max_silent_seconds: how long a decode process may take without a sign of life.
        max_paused_seconds: how long a timeline may wait for a client that acknowledges windows.
        max_worker_megabytes: memory in MiB that a decode process may take, on top of what it starts with and the video.
        run_milliseconds: how long a run of a network for timelines may take, as far as the number of windows in it
            decides that. Other requests wait for it.
        max_bytes: of a file. A message of gRPC has less than 2 GiB; the file is in memory about four times: in Triton's
            message, in shared memory of Triton's backend, for the decode process, and for a moment as Python's bytes.
        max_pixels, max_frames: of a video, as in the decode step.

    Raises:
        ValueError: a value is out of bounds.
    """

    max_timelines: int = 4
    max_timeline_seconds: int = 4 * 60 * 60
    max_timeline_windows: int = 100_000
    max_shared_megabytes: int = 1024
    max_silent_seconds: int = 30
    max_paused_seconds: int = 600
    max_worker_megabytes: int = 2048
    run_milliseconds: int = 50
    max_bytes: int = 2000 * 2**20
    max_pixels: int = Limits.max_pixels
    max_frames: int = Limits.max_frames

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 1 <= value <= 2**31:
                raise ValueError(f"{name} is {value}, but 1 to 2^31 is allowed")

    @property
    def limits(self) -> Limits:
        """What a video may contain."""
        return Limits(self.max_bytes, self.max_pixels, self.max_timeline_seconds, self.max_frames)

    @property
    def window_limits(self) -> WindowLimits:
        """How many windows it may have."""
        return WindowLimits(self.max_timeline_windows, self.max_shared_megabytes)

    @property
    def process(self) -> PoolSettings:
        """What a decode process may use."""
        return PoolSettings(
            workers=1, max_decode_seconds=self.max_silent_seconds, max_worker_megabytes=self.max_worker_megabytes
        )


@dataclass(frozen=True)
class TimelineConfig:
    """What the model is configured to do. networks: by the public name of the model."""

    settings: TimelineSettings
    networks: Mapping[str, ServedNetwork]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], environment: Mapping[str, str]) -> TimelineConfig:
        """Read the parameters. Raises ValueError for a name or a value that is not allowed."""
        networks = {
            name.removeprefix(_MODEL): ServedNetwork.from_config(value)
            for name, value in parameters.items()
            if name.startswith(_MODEL)
        }
        known = {field.name for field in fields(TimelineSettings)}
        values = {name: value for name, value in parameters.items() if not name.startswith(_MODEL)}
        if unknown := set(values) - known:
            raise ValueError(f"no such parameter: {sorted(unknown)}; there are {sorted(known)}")
        settings = {name: int(value) for name, value in values.items()}
        # A server with little shared memory lets in smaller files.
        lowered = json.loads(environment.get(LIMITS_VARIABLE, "{}"))
        if "max_bytes" in lowered:
            settings["max_bytes"] = min(
                settings.get("max_bytes", TimelineSettings.max_bytes), int(lowered["max_bytes"])
            )
        return cls(TimelineSettings(**settings), networks)
