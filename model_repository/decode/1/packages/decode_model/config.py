"""The decode step's config: the parameters of its config.pbtxt, and the environment variables that override them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clip_decode.errors import InvalidRequest
from clip_decode.geometry import Geometry
from clip_decode.limits import Limits
from clip_decode.sampling import Sampling
from decode_pool.admission import BacklogLimit
from decode_pool.settings import PoolSettings

# JSON. A server whose shared memory holds less than the config allows lowers the limits by it.
LIMITS_VARIABLE = "CLIPSERVE_DECODE_LIMITS"
# Overrides the parameter `decoder`.
DECODER_VARIABLE = "CLIPSERVE_DECODER"


@dataclass(frozen=True)
class StepConfig:
    """What the decode step is configured to do.

    Attributes:
        geometries: shape of the clips, by the name of the output (parameters CLIP_...).
        max_clips: clips of one video that an output may have, where a network takes fewer than the sampling allows
            (MAX_CLIP_...).
        backlog_limits: decoded requests that may wait for the networks of an output (QUEUE_CLIP_...).
        pool: settings of the decode pool.
        limits: what a video may contain.
        lowered: names of the parameters that shared memory has lowered.
    """

    geometries: Mapping[str, Geometry]
    max_clips: Mapping[str, int]
    backlog_limits: Mapping[str, BacklogLimit]
    pool: PoolSettings
    limits: Limits
    lowered: frozenset[str]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], environment: Mapping[str, str]) -> StepConfig:
        """Read the parameters. Raises ValueError for a name or a value that is not allowed."""
        lowered: dict[str, str] = json.loads(environment.get(LIMITS_VARIABLE, "{}"))
        values = {**parameters, **lowered}
        if decoder := environment.get(DECODER_VARIABLE):
            values["decoder"] = decoder
        outputs = [name for name in values if name.startswith("CLIP_")]
        geometries = {name: Geometry.from_config(json.loads(values.pop(name))) for name in outputs}
        max_clips = {name: int(values.pop(f"MAX_{name}")) for name in outputs if f"MAX_{name}" in values}
        backlog_limits = {
            name: BacklogLimit.from_config(values.pop(f"QUEUE_{name}")) for name in outputs if f"QUEUE_{name}" in values
        }
        pool = PoolSettings.from_config(values)
        limits = Limits.from_config({name: value for name, value in values.items() if name not in pool.names()})
        return cls(geometries, max_clips, backlog_limits, pool, limits, frozenset(lowered))

    def check_clips(self, outputs: Iterable[str], sampling: Sampling) -> None:
        """Raise InvalidRequest when the sampling asks for more clips of a video than a network takes."""
        for name in outputs:
            most = self.max_clips.get(name, sampling.clips)
            if sampling.clips > most:
                why = " (the server's shared memory, /dev/shm, holds no more)" if f"MAX_{name}" in self.lowered else ""
                raise InvalidRequest(
                    f"{sampling.views} views x {sampling.crops} crops are {sampling.clips} clips, but this model"
                    f" takes at most {most} of one video{why}; ask for fewer views or crops"
                )
