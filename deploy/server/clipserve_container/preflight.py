"""The checks before the server starts. Each finds one reason why it would fail later, and says what to do."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from clipserve_container.certificates import day, read_expiry
from clipserve_container.memory import CGROUP, largest_runs, memory_limit, memory_needed, shared_memory_needed
from clipserve_container.repository import RepositoryError, choose_models, names_openvino, names_to_serve
from clipserve_container.settings import Settings

# The kernel's note of the driver. Every container has it, also one without a GPU.
DRIVER_VERSION = Path("/proc/driver/nvidia/version")
GPU_DEVICE = Path("/dev/nvidiactl")
SHARED_MEMORY = Path("/dev/shm")
BACKEND = Path("/opt/tritonserver/backends/onnxruntime")
BACKEND_LIBRARY, OPENVINO_LIBRARY = "libtriton_onnxruntime.so", "libonnxruntime_providers_openvino.so"
# ONNX Runtime 1.21.0 refuses the options of OpenVINO: "enable_opencl_throttling should be a boolean".
RELEASES_WITHOUT_OPENVINO = ("25.03", "25.04")
# The driver's libraries for NVDEC. A container has them with the driver capability `video`.
VIDEO_LIBRARIES = ("libnvcuvid.so.1", "libnvidia-encode.so.1")
# Options with and without `=`.
_MOVED_PORTS = re.compile(
    r"--(?:allow-(?:http|metrics)[= ](?:0|false|off)(?!\S)|(?:http|metrics)-port[= ]\S*|metrics-address[= ]\S*)",
    re.IGNORECASE,
)

Check = Callable[[Settings], Iterator[str]]


def find_problems(settings: Settings, *, in_server: bool = True) -> list[str]:
    """A message for each problem; empty when the server may start.

    in_server: whether this is the server's container, which gets GPUs, and not the one that only checks.
    """
    checks: list[Check] = [
        check_repository,
        check_driver,
        check_certificates,
        check_secrets,
        check_shared_memory,
        check_options,
        check_openvino,
        check_memory,
    ]
    if in_server:
        checks += [check_gpu, check_decoder, check_state]
    return [problem for check in checks for problem in check(settings)]


def check_repository(settings: Settings) -> Iterator[str]:
    """The repository has a model to serve, and this user can read it."""
    unreadable = f"cannot be read by user {os.getuid()}: set CLIPSERVE_UID to the owner of the files"
    if _is_closed(settings.repository):
        yield f"{settings.repository} {unreadable}"  # it looks empty
        return
    try:
        names = names_to_serve(settings.repository, choose_models(settings.repository, settings.models))
    except RepositoryError as error:
        yield str(error)
        return
    except PermissionError as error:
        yield f"{error.filename} {unreadable}"
        return
    for name in names:
        closed = [path for path in (settings.repository / name).rglob("*") if not os.access(path, os.R_OK)]
        if closed:
            yield f"{closed[0]} {unreadable}, or chmod -R a+rX the repository"


def _is_closed(folder: Path) -> bool:
    """Whether the folder is there, and this user cannot see its files."""
    return folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)


def check_driver(settings: Settings, version_file: Path = DRIVER_VERSION) -> Iterator[str]:
    """The host has an NVIDIA driver that is new enough for the CUDA of this release."""
    if settings.gpu == "none":
        return
    try:
        found = re.search(r"(\d+)\.\d+(?:\.\d+)?", version_file.read_text())
    except OSError:
        yield (
            f"there is no NVIDIA driver on this host ({version_file} is missing): install driver {settings.driver} or"
            " later and the NVIDIA container toolkit, or serve on the CPU:"
            " docker compose -f docker-compose.yml -f docker-compose.cpu.yml up -d"
        )
        return
    if found and int(found[1]) < settings.driver:
        yield (
            f"the NVIDIA driver is {found[0]}, but this release of Triton needs {settings.driver} or later: update"
            " the driver, or set CLIPSERVE_RELEASE to an older release (docs/gpu-server.md has a table)"
        )


def check_gpu(settings: Settings, device: Path = GPU_DEVICE) -> Iterator[str]:
    """This container has a GPU."""
    if settings.gpu == "required" and DRIVER_VERSION.exists() and not device.exists():
        yield (
            f"this container was given no GPU ({device} is missing): install the NVIDIA container toolkit and run"
            " 'nvidia-ctk runtime configure --runtime=docker', or use docker-compose.cpu.yml"
        )


def check_decoder(settings: Settings, libraries: Sequence[str] = VIDEO_LIBRARIES) -> Iterator[str]:
    """NVDEC's libraries are there, if the settings require NVDEC. With `auto`, CPUs decode without them."""
    if settings.decoder != "nvdec":
        return
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            yield (
                f"CLIPSERVE_DECODER is nvdec, but {name} of NVIDIA's driver is missing from this container: set"
                " NVIDIA_DRIVER_CAPABILITIES=compute,utility,video, as docker-compose.yml does, or let"
                " CLIPSERVE_DECODER be auto, which decodes on the CPU where there is no NVDEC"
            )


def check_certificates(settings: Settings) -> Iterator[str]:
    """The files for TLS exist, are readable, belong together, and have not expired."""
    if settings.tls == "off" or _is_closed(settings.secrets):
        return
    needed = [settings.server_certificate, settings.server_key]
    if settings.tls == "mutual":
        needed.append(settings.client_authority)
    missing = False
    for path in needed:
        if not path.is_file():
            missing = True
            yield (
                f"CLIPSERVE_TLS is {settings.tls}, but {path.name} is missing from {settings.secrets}: run"
                " deploy/tls/make_certificates.sh, or put your own files into the folder CLIPSERVE_SECRETS"
            )
        elif not os.access(path, os.R_OK):
            missing = True
            yield f"{path.name} cannot be read by user {os.getuid()}: make it readable for CLIPSERVE_UID"
    if missing:
        return
    try:
        # With an empty password an encrypted key fails here, and does not ask a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.server_certificate, settings.server_key, password=""
        )
    except ssl.SSLError as error:
        yield f"server.pem and server.key are not a certificate and its key: {error.reason or error}"
        return
    if (expiry := read_expiry(settings.server_certificate)) is not None and expiry < time.time():
        yield f"{settings.server_certificate.name} expired on {day(expiry)}: make a new one"
    if settings.tls == "mutual":
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(settings.client_authority)
        except ssl.SSLError as error:
            yield f"ca.pem is not the certificate of an authority: {error.reason or error}"


def check_secrets(settings: Settings) -> Iterator[str]:
    """The keys of Triton's restricted APIs are one printable word, because they are sent in a header."""
    if _is_closed(settings.secrets):
        yield f"{settings.secrets} cannot be read by user {os.getuid()}: make it readable for CLIPSERVE_UID"
        return
    for name in ("admin_key", "api_key"):
        path = settings.secrets / name
        if not path.exists():
            continue
        if not os.access(path, os.R_OK):
            yield f"{name} cannot be read by user {os.getuid()}: make it readable for CLIPSERVE_UID"
        elif not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,512}", path.read_text(errors="replace").strip()):
            yield f"{name} must be 16 to 512 letters, digits and ._~+/=- in one line: openssl rand -hex 32 > {name}"


def check_shared_memory(settings: Settings, folder: Path = SHARED_MEMORY) -> Iterator[str]:
    """Shared memory has room for as many requests as the decode step allows."""
    try:
        needed = shared_memory_needed(settings)
    except (OSError, ValueError, KeyError, RepositoryError):
        return  # a model or the decode step is missing or broken: check_repository and Triton report it
    have = shutil.disk_usage(folder).total
    if have < needed:
        yield (
            f"shared memory is {have / 2**20:.0f} MiB, but {needed / 2**20:.0f} MiB may be in use at once: set"
            f" CLIPSERVE_SHM_SIZE={-(-needed // 2**20)}m, or let fewer requests in (max_waiting of the decode step),"
            " or smaller ones (CLIPSERVE_VIDEO_MEGABYTES, CLIPSERVE_VIEWS)"
        )


def check_options(settings: Settings) -> Iterator[str]:
    """Triton's HTTP and metrics are where this container asks for readiness, and the decode step for what waits."""
    for option in _MOVED_PORTS.findall(" ".join(settings.triton_options)):
        yield (
            f"CLIPSERVE_TRITON_OPTIONS has {option}, but readiness is asked of Triton's HTTP at port 8000, and the"
            " decode step reads Triton's metrics at port 8002, to bound what waits for the networks: leave it out"
        )


def check_openvino(settings: Settings, backend: Path = BACKEND) -> Iterator[str]:
    """ONNX Runtime has OpenVINO if a config names it, and no config names it on a GPU.

    backend: the folder of Triton's ONNX Runtime backend.
    """
    if not (backend / BACKEND_LIBRARY).exists():
        return  # another runtime has this name here
    try:
        models = choose_models(settings.repository, settings.models)
        asking = [model.name for model in models if any(names_openvino(settings.repository, s) for s in model.steps)]
    except (OSError, RepositoryError):
        return  # check_repository reports it
    if not asking:
        return
    come = f"the configs of {', '.join(asking)} ask for OpenVINO"
    remedy = f"docker compose run --rm export --configs {' '.join(asking)} --cpu-accelerator none"
    if settings.gpu == "required":
        yield f"{come}, which is for CPUs and would run parts of them beside the GPU: export them again, or {remedy}"
    elif settings.release.startswith(RELEASES_WITHOUT_OPENVINO):
        yield (
            f"{come}, which ONNX Runtime 1.21.0 of release {settings.release} cannot load: choose another"
            f" CLIPSERVE_RELEASE, or {remedy}"
        )
    elif not (backend / OPENVINO_LIBRARY).exists():
        yield f"{come}, but ONNX Runtime was built without it here ({OPENVINO_LIBRARY} is not in {backend}): {remedy}"


def check_memory(settings: Settings, cgroup: Path = CGROUP, backend: Path = BACKEND) -> Iterator[str]:
    """On a CPU, the largest runs of all models fit into the container's memory."""
    if settings.gpu == "required" or not (backend / BACKEND_LIBRARY).exists():
        return  # a run takes memory of the GPU; or another runtime splits large runs
    try:
        needed, have = memory_needed(settings), memory_limit(cgroup)
        models = choose_models(settings.repository, settings.models)
        runs = sorted(largest_runs(settings.repository, models), key=lambda run: run.megabytes, reverse=True)
    except (OSError, ValueError, KeyError, RepositoryError):
        return  # check_repository and Triton report it
    if needed > have and not runs:
        yield (
            f"this container has {have} MiB of memory, but the server takes {needed} MiB beside its networks, whose"
            " configs do not say what a clip takes: raise CLIPSERVE_MEMORY"
        )
    elif needed > have:
        largest = runs[0]
        model = largest.network.removesuffix("_net")
        yield (
            f"this container has {have} MiB of memory, but the largest runs that the configs allow take {needed} MiB,"
            f" {largest.megabytes} of them {largest.videos} videos of {largest.clips} clips in {largest.network}: allow"
            f" smaller ones (docker compose run --rm export --configs {model} --max-batch 1 --max-clips 5), serve fewer"
            " models (CLIPSERVE_MODELS), or raise CLIPSERVE_MEMORY"
        )


def check_state(settings: Settings) -> Iterator[str]:
    """The state folder can be written. The root file system is read-only, so it must be a tmpfs."""
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (settings.state / "probe").write_text("")
    except OSError as error:
        yield f"{settings.state} cannot be written ({error.strerror}): mount a tmpfs at /tmp"
