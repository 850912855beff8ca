"""Sends thousands of files through a real server: `python -m benchmarks.endurance fuzz` and `... soak`.

fuzz sends damaged files, soak good ones, to the model `motion`. Both end with an error if a request gets no answer, an
answer is wrong, the model is dead in the end or the memory of the service grew. Writes benchmarks/results/endurance.md,
which keeps the last run of each.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track
from tests.decode.mutation import BASES, mutate

from benchmarks.harness.machine import process_tree
from benchmarks.harness.models import export_for_benchmark, serve
from benchmarks.harness.results import RESULTS, table
from clipserve import VideoClassifier
from clipserve.errors import ClipserveError, VideoError
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton

CALLERS = 4
WARM_UP = 500  # requests before memory is read first: allocators and caches fill in the first hundreds
MAX_GROWTH_MEGABYTES = 24  # of all processes of the service together
READINGS = 5  # of the memory
GOOD_SEED = 1_234_567


def role(pid: int) -> str:
    """The role of a process of the service."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if "decode_pool.worker" in words:
        return "decode workers"
    if words[0].endswith("tritonserver"):
        return "tritonserver"
    if "python_backend_stub" not in words[0]:
        return "guard"
    return "decode step" if any(word.startswith("decode_") for word in words) else "network"


def service_megabytes() -> dict[str, float]:
    """The service's own memory (without mapped files and libraries), in MiB, by role of its processes."""
    total: Counter[str] = Counter()
    for process in list(process_tree(os.getpid()))[1:]:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            name = role(process.pid)
        except OSError:
            continue
        own = ("Pss_Anon:", "Pss_Shmem:")
        total[name] += sum(int(line.split()[1]) for line in lines if line.startswith(own))
    return {name: kilobytes / 1024 for name, kilobytes in sorted(total.items())}


def count_restarts(triton: Triton) -> int:
    """The number of decode workers that were replaced."""
    with urllib.request.urlopen(triton.metrics_url) as response:
        (value,) = re.findall(r"^clipserve_decode_worker_restarts_total (\S+)", response.read().decode(), re.MULTILINE)
    return round(float(value))


def describe(outcomes: Counter[str], readings: dict[int, dict[str, float]], seconds: float) -> list[str]:
    """Lines of Markdown: the outcomes, and the memory at each reading, by requests sent before it."""
    answered = sum(outcomes.values())
    roles = sorted({name for reading in readings.values() for name in reading})
    memory = (
        [sent, *(f"{reading.get(name, 0):.0f}" for name in roles), f"{sum(reading.values()):.0f}"]
        for sent, reading in readings.items()
    )
    return [
        f"{answered} requests answered in {seconds:.0f} s ({answered / seconds:.0f}/s), {CALLERS} at a time.",
        "",
        *table(["outcome", "requests"], outcomes.most_common()),
        "",
        f"Memory in MiB, without what other programs share, after {WARM_UP} requests of warm-up:",
        "",
        *table(["requests", *roles, "all"], memory, texts=0),
    ]


def write_result(kind: str, lines: list[str]) -> None:
    """Replace the section of `kind` in endurance.md."""
    path = RESULTS / "endurance.md"
    sections = path.read_text().split("\n## ")[1:] if path.exists() else []
    kept = {section.partition("\n")[0]: section.partition("\n")[2].strip() for section in sections}
    kept[kind] = "\n".join(lines).strip()
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "".join(f"\n## {name}\n\n{kept[name]}\n" for name in sorted(kept))
    path.write_text(f"The last runs of `make fuzz` and `make soak`.\n{text}")


def damaged_files(count: int, seed: int) -> Iterator[bytes]:
    """Yield damaged videos."""
    chance = random.Random(seed)
    bases = [clip.make() for clip in BASES.values()]
    for _ in range(count):
        yield mutate(chance.choice(bases), chance)


def good_files(count: int, seed: int) -> Iterator[bytes]:
    """Yield a dozen good videos in several forms, again and again."""
    chance = random.Random(seed)
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for number, label in enumerate(LABELS):
            suffix, codec = (("mp4", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"))[number % 3]
            path = Path(folder, f"{number}.{suffix}")
            write_motion_video(path, label, GOOD_SEED, codec=codec)
            files.append(path.read_bytes())
    for _ in range(count):
        yield chance.choice(files)


def run(kind: str, count: int, seed: int) -> int:
    """Send the files; returns the exit status."""
    make = {"fuzz": damaged_files, "soak": good_files}[kind]
    with (
        serve(export_for_benchmark(SPECS["motion"]), "motion") as triton,
        VideoClassifier("motion", url=triton.grpc_url) as classifier,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        # Without load the service names each good file; later it must give the same names.
        first = {data: classifier.classify(data).top.label for data in set(good_files(200, seed))}

        def outcome(data: bytes) -> str:
            try:
                answer = classifier.classify(data).top.label
            except VideoError as error:
                return error.code
            except ClipserveError as error:
                return f"LOST: {error.code}"
            expected = first.get(data, answer)
            return "answer" if answer == expected else f"WRONG: {expected} was called {answer}"

        Counter(pool.map(outcome, make(WARM_UP, seed + 1)))
        readings, started = {0: service_megabytes()}, time.monotonic()
        outcomes: Counter[str] = Counter()
        files = make(count, seed)
        for sent in track(range(0, count, 100), kind):
            outcomes.update(pool.map(outcome, [item for _, item in zip(range(100), files, strict=False)]))
            if len(readings) * count <= (sent + 100) * READINGS:
                readings[min(sent + 100, count)] = service_megabytes()
        took = time.monotonic() - started
        alive = all(outcome(item) == "answer" for item in good_files(12, seed))
        restarts = count_restarts(triton)
    lines = describe(outcomes, readings, took)
    lines[0] += (
        f" Seed {seed}, {restarts} decode workers replaced; in the end the model is {'alive' if alive else 'DEAD'}."
    )
    print("\n".join(lines))
    write_result(kind, lines)
    bad = [name for name in outcomes if name.startswith(("LOST", "WRONG"))]
    growth = sum(readings[max(readings)].values()) - sum(readings[0].values())
    fine = sum(outcomes.values()) == count and not bad and alive and growth < MAX_GROWTH_MEGABYTES
    return 0 if fine else 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["fuzz", "soak"])
    parser.add_argument("--count", type=int, default=10_000, help="files to send (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(run(arguments.kind, arguments.count, arguments.seed))


if __name__ == "__main__":
    main()
