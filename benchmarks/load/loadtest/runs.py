"""One run of perf_analyzer: its command line, its files, its end."""

import json
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.analyzer import Analyzer
from loadtest.arrivals import write_gaps
from loadtest.errors import LoadTestError
from loadtest.loads import Load
from loadtest.server import Server

# perf_analyzer measures at least three windows, and is told to take these three, however they differ: where its own
# idea of "stable" fails it ends without any numbers. How far they differ is a column of the table.
WINDOWS = 3
ANY_SPREAD = 10**9
LEAST_REQUESTS = 10  # in a window of the open loop
GRACE_SECONDS = 120.0  # to read the inputs, to connect, and for the last answers of an overloaded server
STOP_SECONDS = 5.0
GAPS = "gaps.txt"


@dataclass(frozen=True)
class Settings:
    """What every run has in common.

    Attributes:
        seconds: of measuring, in three windows.
        percentile: which perf_analyzer reports beside its own.
        keep_requests: also keep its record of every request, which has the requests' very bytes in it.
        extra: more options of perf_analyzer, as a shell would read them.
    """

    seconds: float
    percentile: int
    keep_requests: bool = False
    extra: str = ""

    def stretched(self, load: Load, alone_seconds: float) -> "Settings":
        """With windows long enough for this load: one in which nothing is answered makes perf_analyzer fail.

        Args:
            alone_seconds: of a request when there is no other.
        """
        # In the closed loop, as if the server did one request after the other.
        window = LEAST_REQUESTS / load.value if load.mode == "open" else 2 * load.value * alone_seconds
        return replace(self, seconds=max(self.seconds, WINDOWS * window))


def build_command(
    analyzer: Analyzer, server: Server, settings: Settings, load: Load, *, model: str, inputs: Path, folder: Path
) -> list[str]:
    """The command line; `folder` takes the files, and has GAPS for the open loop."""
    closed = ["--concurrency-range", f"{load.value:g}:{load.value:g}:1"]
    loop = closed if load.mode == "closed" else ["--request-intervals", str(folder / GAPS)]
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
        # Asynchronous, or no more requests could be under way than it has threads.
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


def run_analyzer(
    command: list[str], environment: Mapping[str, str], folder: Path, *, load: Load, seconds: float
) -> None:
    """Run it, its words into said.txt and errors.txt of `folder`, which is made; it ends when this does.

    Raises:
        LoadTestError: it does not end.
    """
    folder.mkdir(parents=True)
    if load.mode == "open":
        write_gaps(folder / GAPS, load.value, seconds / WINDOWS)
    # Values of headers are secrets.
    shown = [word if before != "-H" else word.partition(":")[0] for before, word in zip(["", *command], command)]  # noqa: B905
    (folder / "command.json").write_text(json.dumps(shown, indent=1) + "\n")
    with (folder / "said.txt").open("wb") as said, (folder / "errors.txt").open("wb") as errors:
        # A session of its own: Ctrl-C is for us, who end it, since it would finish its measurement first.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=errors, start_new_session=True
        )
        try:
            process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(
                f"perf_analyzer does not end, {GRACE_SECONDS:.0f} s after it should have; its words are in {folder}"
            ) from error
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then make it. Harmless when it has ended."""
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
