"""Long proofs through a real server: `python benchmarks/endurance.py fuzz` and `... soak`.

fuzz sends damaged files, soak good ones; both end with an error if a request is lost, an answer is wrong, a model is
dead or the memory of the service has grown. The server runs `motion`, exported into a folder of its own.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from clipserve import VideoClassifier
from clipserve.errors import ClipserveError, VideoError
from clipserve_export.exporting import export_model
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "decode"))
from mutation import BASES, mutate

CALLERS = 4
# Warm-up before memory is first looked at: allocators and caches fill in the first hundreds of requests.
WARM_UP = 500
# What memory may have grown by in the end, in MiB, over every process of the service.
ALLOWED_GROWTH_MEGABYTES = 64
GOOD_SEED = 1_234_567


def service_megabytes() -> float:
    """Proportional memory of every process this one started, in MiB."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family: set[int] = set()
    while grown := {pid for pid, parent in parents.items() if parent in family | {os.getpid()}} - family:
        family |= grown
    total = 0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def damaged_files(count: int, seed: int) -> Iterator[bytes]:
    """Damaged videos."""
    chance = random.Random(seed)
    bases = [clip.make() for clip in BASES.values()]
    for _ in range(count):
        yield mutate(chance.choice(bases), chance)


def good_files(count: int, seed: int) -> Iterator[bytes]:
    """A dozen good videos in several forms, over and over."""
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
    """Send the files; gives the exit status."""
    make = {"fuzz": damaged_files, "soak": good_files}[kind]
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        write_configs(repository)
        export_model(
            SPECS["motion"], format_name="onnx", weights_source="pretrained", labels_file=None, repository=repository
        )
        with (
            Triton(repository, http_port=0, grpc_port=0, metrics_port=0) as triton,
            VideoClassifier("motion", url=triton.grpc_url) as classifier,
            ThreadPoolExecutor(CALLERS) as pool,
        ):
            # What the unloaded service calls a good file is what it must call it ever after.
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
            before, started = service_megabytes(), time.monotonic()
            outcomes: Counter[str] = Counter()
            files = make(count, seed)
            for _ in track(range(0, count, 100), kind):
                outcomes.update(pool.map(outcome, [item for _, item in zip(range(100), files, strict=False)]))
            after, took = service_megabytes(), time.monotonic() - started
            alive = all(outcome(item) == "answer" for item in good_files(12, seed))
    answered = sum(outcomes.values())
    print(f"{kind}: {answered} of {count} requests answered in {took:.0f} s ({answered / took:.0f}/s), seed {seed}")
    for name, times in outcomes.most_common():
        print(f"  {times:6d}  {name}")
    print(f"memory of the service: {before:.0f} MiB after warm-up, {after:.0f} MiB at the end; model alive: {alive}")
    bad = [name for name in outcomes if name.startswith(("LOST", "WRONG"))]
    fine = answered == count and not bad and alive and after - before < ALLOWED_GROWTH_MEGABYTES
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
