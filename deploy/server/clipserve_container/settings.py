"""What the environment of the container says, read once and checked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

Gpu = Literal["required", "none"]
Tls = Literal["off", "server", "mutual"]
Decoder = Literal["auto", "cpu", "nvdec"]

# Inside the container; which of the host's ports lead here is docker-compose.yml's business.
HTTP_PORT, GRPC_PORT, METRICS_PORT, READY_PORT = 8000, 8001, 8002, 8003
# Kept from exit_seconds for the end itself.
LEAVING_SECONDS = 6


class SettingError(ValueError):
    """A variable has a value that is not allowed."""


@dataclass(frozen=True)
class Settings:
    """Each attribute is the variable of the same name with CLIPSERVE_ before it; .env.example explains them.

    Attributes:
        repository: the model repository.
        models: public models to serve; all that are exported where none is named.
        gpu: whether starting without one is an error.
        driver: the least driver branch that this release of Triton runs on.
        tls: of the gRPC port; `mutual` asks clients for a certificate, too.
        secrets: folder of server.pem, server.key, ca.pem, admin_key, api_key.
        state: folder where the admin key of this start is kept for `reload`.
        exit_seconds: from `docker stop` to SIGKILL.
        drain_seconds: of those, how long new requests are still taken, while a balancer hears to send none.
        watch_seconds: between looks at the models.
        restart_after: failed looks in a row after which Triton is ended, to be started anew; 0 is never.
        video_megabytes: of an upload, for the estimate of shared memory.
        views: clips of a request, for the same.
        cache_megabytes: of the response cache; 0 has none.
        decoder: what decodes videos; `nvdec` does not start without the GPU's video decoder.
        trace_url: of an OpenTelemetry collector; empty traces nothing.
        trace_rate: one request in so many is traced.
        log_verbose: Triton's level.
        triton_options: more of tritonserver's options.
        release: of the container, as NVIDIA's image says itself; empty on other images.
    """

    repository: Path = Path("/models")
    models: tuple[str, ...] = ()
    gpu: Gpu = "required"
    driver: int = 580
    tls: Tls = "off"
    secrets: Path = Path("/run/clipserve/secrets")
    state: Path = Path("/tmp/clipserve")
    exit_seconds: int = 30
    drain_seconds: int = 10
    watch_seconds: int = 10
    restart_after: int = 3
    video_megabytes: int = 8
    views: int = 1
    cache_megabytes: int = 0
    decoder: Decoder = "auto"
    trace_url: str = ""
    trace_rate: int = 100
    log_verbose: int = 0
    triton_options: tuple[str, ...] = ()
    release: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; an empty one is one that is not set. Raises SettingError."""

        def text(name: str, default: str) -> str:
            return environment.get(f"CLIPSERVE_{name}", "").strip() or default

        def number(name: str, default: int, least: int) -> int:
            value = text(name, str(default))
            if not value.isascii() or not value.isdigit() or not least <= int(value) <= 2**31 - 1:
                raise SettingError(f"CLIPSERVE_{name} is {value!r}, but it is a whole number from {least}")
            return int(value)

        def one_of(name: str, default: str, allowed: tuple[str, ...]) -> str:
            value = text(name, default)
            if value not in allowed:
                raise SettingError(f"CLIPSERVE_{name} is {value!r}, but it is one of {', '.join(allowed)}")
            return value

        exit_seconds = number("EXIT_SECONDS", cls.exit_seconds, LEAVING_SECONDS)
        drain_seconds = number("DRAIN_SECONDS", cls.drain_seconds, 0)
        if drain_seconds > exit_seconds - LEAVING_SECONDS:
            raise SettingError(
                f"CLIPSERVE_DRAIN_SECONDS is {drain_seconds}, but of the {exit_seconds} of CLIPSERVE_EXIT_SECONDS"
                f" {LEAVING_SECONDS} are for the end itself: raise the one or lower the other"
            )
        try:
            options = tuple(shlex.split(text("TRITON_OPTIONS", "")))
        except ValueError as error:
            raise SettingError(f"CLIPSERVE_TRITON_OPTIONS cannot be split into words: {error}") from error
        return cls(
            repository=Path(text("REPOSITORY", str(cls.repository))),
            models=tuple(text("MODELS", "").replace(",", " ").split()),
            gpu=cast(Gpu, one_of("GPU", cls.gpu, get_args(Gpu))),
            driver=number("DRIVER", cls.driver, 1),
            tls=cast(Tls, one_of("TLS", cls.tls, get_args(Tls))),
            secrets=Path(text("SECRETS", str(cls.secrets))),
            state=Path(text("STATE", str(cls.state))),
            exit_seconds=exit_seconds,
            drain_seconds=drain_seconds,
            watch_seconds=number("WATCH_SECONDS", cls.watch_seconds, 1),
            restart_after=number("RESTART_AFTER", cls.restart_after, 0),
            video_megabytes=number("VIDEO_MEGABYTES", cls.video_megabytes, 1),
            views=number("VIEWS", cls.views, 1),
            cache_megabytes=number("CACHE_MEGABYTES", cls.cache_megabytes, 0),
            decoder=cast(Decoder, one_of("DECODER", cls.decoder, get_args(Decoder))),
            trace_url=text("TRACE_URL", cls.trace_url),
            trace_rate=number("TRACE_RATE", cls.trace_rate, 1),
            log_verbose=number("LOG_VERBOSE", cls.log_verbose, 0),
            triton_options=options,
            release=environment.get("NVIDIA_TRITON_SERVER_VERSION", ""),
        )

    @property
    def server_certificate(self) -> Path:
        """PEM."""
        return self.secrets / "server.pem"

    @property
    def server_key(self) -> Path:
        """PEM."""
        return self.secrets / "server.key"

    @property
    def client_authority(self) -> Path:
        """PEM of the authority that signs clients' certificates."""
        return self.secrets / "ca.pem"
