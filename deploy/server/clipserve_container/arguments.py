"""Triton's command line, from the settings."""

from __future__ import annotations

from clipserve_container.repository import PublicModel, names_to_load
from clipserve_container.settings import GRPC_PORT, HTTP_PORT, METRICS_PORT, Settings

TRITON = "tritonserver"
# What rules the server rather than asks it something. Closed to everybody without the key.
ADMIN_APIS = ("model-repository", "shared-memory", "statistics", "trace", "logging")
ADMIN_HEADER = "clipserve-admin"
# What clients need; closed as well where an api_key is set. health stays open: it tells nothing but ready or not.
CLIENT_APIS = ("inference", "metadata", "model-config")
CLIENT_HEADER = "clipserve-api"


def triton_command(
    settings: Settings, models: list[PublicModel], *, admin_key: str, api_key: str | None = None
) -> list[str]:
    """The whole command."""
    return [
        TRITON,
        # What /v2 answers as the server's name.
        "--id=clipserve",
        f"--model-repository={settings.repository}",
        # The configs are the whole truth.
        "--disable-auto-complete-config",
        # Explicit: models come and go when the operator says so (clipserve_container.reload), never because a file
        # appeared, and a folder that is not exported yet is no error. Poll mode would load half-copied files.
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in names_to_load(models)),
        # A server that lacks a model it was told to serve does not start: better no container than a half one.
        "--exit-on-error=true",
        "--strict-readiness=true",
        # For the networks' runs under way. Longer than it lasts: clipserve_container.service ends it in time.
        f"--exit-timeout-secs={settings.exit_seconds}",
        f"--http-port={HTTP_PORT}",
        f"--grpc-port={GRPC_PORT}",
        f"--metrics-port={METRICS_PORT}",
        # Timings by quantile, which the dashboard shows.
        "--metrics-config=summary_latencies=true",
        f"--allow-gpu-metrics={'true' if settings.gpu == 'required' else 'false'}",
        # A channel that lives for ever sticks to one server behind a balancer of connections.
        "--grpc-max-connection-age=3600000",
        "--grpc-max-connection-age-grace=600000",
        *restrictions(admin_key, api_key),
        *encryption(settings),
        "--log-format=ISO8601",
        f"--log-verbose={settings.log_verbose}",
        *caching(settings),
        *tracing(settings),
        *settings.triton_options,
    ]


def restrictions(admin_key: str, api_key: str | None) -> list[str]:
    """Both protocols ask for the key in a header: HTTP in `clipserve-admin`, gRPC in `triton-grpc-protocol-` that."""
    groups: list[tuple[tuple[str, ...], str, str]] = [(ADMIN_APIS, ADMIN_HEADER, admin_key)]
    if api_key is not None:
        groups.append((CLIENT_APIS, CLIENT_HEADER, api_key))
    return [
        f"--{option}={','.join(apis)}:{header}={key}"
        for apis, header, key in groups
        for option in ("grpc-restricted-protocol", "http-restricted-api")
    ]


def encryption(settings: Settings) -> list[str]:
    """Of the gRPC port. Triton's HTTP has none, so no port of the host leads to it."""
    if settings.tls == "off":
        return []
    options = [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={settings.server_certificate}",
        f"--grpc-server-key={settings.server_key}",
    ]
    if settings.tls == "mutual":
        options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={settings.client_authority}"]
    return options


def caching(settings: Settings) -> list[str]:
    """The local response cache, for the models whose config asks for it."""
    return [f"--cache-config=local,size={settings.cache_megabytes * 2**20}"] if settings.cache_megabytes else []


def tracing(settings: Settings) -> list[str]:
    """OpenTelemetry, one request in trace_rate, every step of the ensemble as a span."""
    if not settings.trace_url:
        return []
    return [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={settings.trace_url}",
        "--trace-config=opentelemetry,resource=service.name=clipserve",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=rate={settings.trace_rate}",
    ]
