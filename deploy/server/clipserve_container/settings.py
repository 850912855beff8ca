"""The settings of the container, read from its environment and checked."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

Gpu = Literal["required", "none"]
Tls = Literal["off", "server", "mutual"]
Decoder = Literal["auto", "cpu", "nvdec"]

# Inside the container. docker-compose.yml maps ports of the host to them.
HTTP_PORT, GRPC_PORT, METRICS_PORT, READY_PORT = 8000, 8001, 8002, 8003
# Part of exit_seconds, for Triton's exit itself.
TRITON_EXIT_SECONDS = 6


class SettingError(ValueError):
    """An environment variable has a value that is not allowed."""


@dataclass(frozen=True)
class Settings:
    """Each attribute is read from the variable CLIPSERVE_ and its name; .env.example explains them.

    Attributes:
        repository: the model repository.
        models: public models to serve; none named: all that are exported.
        gpu: whether it is an error to start without a GPU.
        driver: the lowest driver branch that this release of Triton runs on.
        tls: TLS of the gRPC port; `mutual` also requires a certificate of clients.
        secrets: folder of server.pem, server.key, ca.pem, admin_key, api_key.
        state: folder where `reload` finds the admin key of this start.
        exit_seconds: from `docker stop` to SIGKILL.
        drain_seconds: part of exit_seconds; the server is "not ready" and still takes requests, until a balancer has
            noticed.
        watch_seconds: between two checks of the models.
        restart_after: failed checks in a row after which Triton is ended, so that Docker restarts it; 0 is never, not
            even if it is stuck as it starts.
        video_megabytes: MiB of an upload, for the estimate of shared memory.
        views: clips of a request, for the same estimate.
        cache_megabytes: MiB of the response cache; 0 is no cache.
        decoder: what decodes videos; with `nvdec` the server does not start without the GPU's video decoder.
        trace_url: an OpenTelemetry collector; empty: no traces.
        trace_rate: one request in this many is traced.
        log_verbose: level of Triton's log.
        triton_options: more options for tritonserver.
        release: release of NVIDIA's container; empty on other images.
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
        """Read the variables. An empty one counts as not set. Raises SettingError."""

        def text(name: str, default: str) -> str:
            return environment.get(f"CLIPSERVE_{name}", "").strip() or default

        def number(name: str, default: int, least: int) -> int:
            value = text(name, str(default))
            if not value.isascii() or not value.isdigit() or not least <= int(value) <= 2**31 - 1:
                raise SettingError(f"CLIPSERVE_{name} is {value!r}, but must be a whole number from {least} on")
            return int(value)

        def one_of(name: str, default: str, allowed: tuple[str, ...]) -> str:
            value = text(name, default)
            if value not in allowed:
                raise SettingError(f"CLIPSERVE_{name} is {value!r}, but must be one of {', '.join(allowed)}")
            return value

        exit_seconds = number("EXIT_SECONDS", cls.exit_seconds, TRITON_EXIT_SECONDS)
        drain_seconds = number("DRAIN_SECONDS", cls.drain_seconds, 0)
        if drain_seconds > exit_seconds - TRITON_EXIT_SECONDS:
            raise SettingError(
                f"CLIPSERVE_DRAIN_SECONDS is {drain_seconds}, but must be at most {exit_seconds - TRITON_EXIT_SECONDS}:"
                f" of the {exit_seconds} CLIPSERVE_EXIT_SECONDS, the last {TRITON_EXIT_SECONDS} are for Triton's"
                " shutdown. Raise CLIPSERVE_EXIT_SECONDS, or lower CLIPSERVE_DRAIN_SECONDS"
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
        """PEM of the authority that signs the clients' certificates."""
        return self.secrets / "ca.pem"
