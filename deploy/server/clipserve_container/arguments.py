"""Triton's command line, made from the settings."""

from __future__ import annotations

from clipserve_container.repository import PublicModel, names_to_serve
from clipserve_container.settings import GRPC_PORT, HTTP_PORT, METRICS_PORT, Settings

TRITON = "tritonserver"
# APIs that control the server. Each request needs the admin key.
ADMIN_APIS = ("model-repository", "shared-memory", "statistics", "trace", "logging")
ADMIN_HEADER = "clipserve-admin"
# APIs that clients use. Where an api_key is set, each request needs it. Health stays open: it only tells ready or not.
CLIENT_APIS = ("inference", "metadata", "model-config")
CLIENT_HEADER = "clipserve-api"


def triton_command(
    settings: Settings, models: list[PublicModel], *, admin_key: str, api_key: str | None = None
) -> list[str]:
    """The command line of tritonserver."""
    return [
        TRITON,
        # The name of the server in /v2.
        "--id=clipserve",
        f"--model-repository={settings.repository}",
        # The configs are complete.
        "--disable-auto-complete-config",
        # Models change when the operator says so (clipserve_container.reload), not when a file appears: poll mode would
        # load half-copied files. Folders of models that are not exported yet are left out.
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in names_to_serve(settings.repository, models)),
        # A server that cannot load one of its models does not start.
        "--exit-on-error=true",
        "--strict-readiness=true",
        # For the networks' runs in flight. Triton is not left so long: clipserve_container.service ends it earlier.
        f"--exit-timeout-secs={settings.exit_seconds}",
        f"--http-port={HTTP_PORT}",
        f"--grpc-port={GRPC_PORT}",
        f"--metrics-port={METRICS_PORT}",
        # The dashboard shows timings by quantile.
        "--metrics-config=summary_latencies=true",
        f"--allow-gpu-metrics={'true' if settings.gpu == 'required' else 'false'}",
        # Otherwise a channel stays with one server behind a balancer of connections for ever.
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
    """Both protocols expect a key in a header, such as `clipserve-admin`; gRPC adds `triton-grpc-protocol-` to it."""
    groups: list[tuple[tuple[str, ...], str, str]] = [(ADMIN_APIS, ADMIN_HEADER, admin_key)]
    if api_key is not None:
        groups.append((CLIENT_APIS, CLIENT_HEADER, api_key))
    return [
        f"--{option}={','.join(apis)}:{header}={key}"
        for apis, header, key in groups
        for option in ("grpc-restricted-protocol", "http-restricted-api")
    ]


def encryption(settings: Settings) -> list[str]:
    """TLS of the gRPC port. Triton's HTTP has no TLS, so no port of the host leads to it."""
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
    """The local response cache, for the models whose config switches it on."""
    return [f"--cache-config=local,size={settings.cache_megabytes * 2**20}"] if settings.cache_megabytes else []


def tracing(settings: Settings) -> list[str]:
    """OpenTelemetry: one request in `trace_rate`, with a span for every step of the ensemble."""
    if not settings.trace_url:
        return []
    return [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={settings.trace_url}",
        "--trace-config=opentelemetry,resource=service.name=clipserve",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=rate={settings.trace_rate}",
    ]
