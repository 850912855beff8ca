"""Long proofs through a real server: `python benchmarks/endurance.py fuzz` and `... soak`.

fuzz sends damaged files, soak good ones; both end with an error if a request is lost, an answer is wrong, a model is
dead or the memory of the service has grown. The server runs `motion`, exported into a folder of its own. Writes what
came of it to benchmarks/results/endurance.md, which keeps the last run of each.
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

from clipserve import VideoClassifier
from clipserve.errors import ClipserveError, VideoError
from clipserve_export.exporting import export_model
from clipserve_export.motion.scenes import LABELS
from clipserve_export.motion.videos import write_motion_video
from clipserve_export.repository import write_configs
from clipserve_export.specs import SPECS
from clipserve_server.triton import Triton

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.decode.mutation import BASES, mutate

CALLERS = 4
# Warm-up before memory is first looked at: allocators and caches fill in the first hundreds of requests.
WARM_UP = 500
# What memory may have grown by in the end, in MiB, over every process of the service.
ALLOWED_GROWTH_MEGABYTES = 24
LOOKS = 5  # at memory, on the way
RESULTS = Path(__file__).resolve().parent / "results"
GOOD_SEED = 1_234_567


def family() -> list[int]:
    """Every process that this one started, and those that they did."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: set[int] = set()
    while grown := {pid for pid, parent in parents.items() if parent in found | {os.getpid()}} - found:
        found |= grown
    return sorted(found)


def role(pid: int) -> str:
    """What a process of the service is."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    if "decode_pool.worker" in words:
        return "decode workers"
    if words[0].endswith("tritonserver"):
        return "tritonserver"
    if "python_backend_stub" not in words[0]:
        return "guard"
    return "decode step" if any(word.startswith("decode_") for word in words) else "network"


def service_megabytes() -> dict[str, float]:
    """Memory that is the service's own (no files of others, no libraries), in MiB, by role of its processes."""
    total: Counter[str] = Counter()
    for pid in family():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            name = role(pid)
        except OSError:
            continue
        own = ("Pss_Anon:", "Pss_Shmem:")
        total[name] += sum(int(line.split()[1]) for line in lines if line.startswith(own))
    return {name: kilobytes / 1024 for name, kilobytes in sorted(total.items())}


def count_restarts(triton: Triton) -> int:
    """Decode workers that were replaced."""
    with urllib.request.urlopen(triton.metrics_url) as response:
        (value,) = re.findall(r"^clipserve_decode_worker_restarts_total (\S+)", response.read().decode(), re.MULTILINE)
    return round(float(value))


def describe(outcomes: Counter[str], looks: dict[int, dict[str, float]], seconds: float) -> list[str]:
    """Lines of Markdown: what became of the requests, and the memory at each look, by requests sent before it."""
    answered = sum(outcomes.values())
    roles = sorted({name for look in looks.values() for name in look})
    return [
        f"{answered} requests answered in {seconds:.0f} s ({answered / seconds:.0f}/s), {CALLERS} at a time.",
        "",
        "| outcome | requests |",
        "|---|---:|",
        *(f"| {name} | {times} |" for name, times in outcomes.most_common()),
        "",
        f"Memory in MiB, without what is shared with other programs, after {WARM_UP} requests of warm-up:",
        "",
        f"| requests | {' | '.join(roles)} | all |",
        f"|---:|{'---:|' * (len(roles) + 1)}",
        *(
            f"| {sent} | {' | '.join(f'{look.get(name, 0):.0f}' for name in roles)} | {sum(look.values()):.0f} |"
            for sent, look in looks.items()
        ),
    ]


def write_result(kind: str, lines: list[str]) -> None:
    """Put the section of `kind` into endurance.md in place of its last one."""
    path = RESULTS / "endurance.md"
    sections = path.read_text().split("\n## ")[1:] if path.exists() else []
    kept = {section.partition("\n")[0]: section.partition("\n")[2].strip() for section in sections}
    kept[kind] = "\n".join(lines).strip()
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "".join(f"\n## {name}\n\n{kept[name]}\n" for name in sorted(kept))
    path.write_text(f"The last runs of `make fuzz` and `make soak`.\n{text}")


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
            looks, started = {0: service_megabytes()}, time.monotonic()
            outcomes: Counter[str] = Counter()
            files = make(count, seed)
            for sent in track(range(0, count, 100), kind):
                outcomes.update(pool.map(outcome, [item for _, item in zip(range(100), files, strict=False)]))
                if len(looks) * count <= (sent + 100) * LOOKS:
                    looks[min(sent + 100, count)] = service_megabytes()
            took = time.monotonic() - started
            alive = all(outcome(item) == "answer" for item in good_files(12, seed))
            restarts = count_restarts(triton)
    lines = describe(outcomes, looks, took)
    lines[0] += (
        f" Seed {seed}, {restarts} decode workers replaced; in the end the model is {'alive' if alive else 'DEAD'}."
    )
    print("\n".join(lines))
    write_result(kind, lines)
    bad = [name for name in outcomes if name.startswith(("LOST", "WRONG"))]
    growth = sum(looks[max(looks)].values()) - sum(looks[0].values())
    fine = sum(outcomes.values()) == count and not bad and alive and growth < ALLOWED_GROWTH_MEGABYTES
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
