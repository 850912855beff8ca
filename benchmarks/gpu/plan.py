"""What to measure, and in which order: the most telling cells first, because the time may run out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_BATCHES, LATER_BATCHES = (8, 1, 32), (2, 4, 16)
PRECISIONS = ("fp16", "tf32", "fp32", "bf16")
LAYOUTS = ("contiguous", "channels_last_3d")
ANY_LAYOUT = "its own"
# "+search" lets cuDNN try its algorithms for each shape; "+graph" replays a CUDA graph.
DIRECT = ("eager", "torchscript", "torchscript+graph")
COMPILED = ("compile", "compile+graph")
FILES = ("onnxruntime-cuda", "onnxruntime-tensorrt")
EXPENSIVE = ("compile-max+graph",)
RUNTIMES = ("baseline", *DIRECT, "eager+graph", "torchscript+search+graph", *COMPILED, *EXPENSIVE, *FILES)
SERVED = ("torchscript", *FILES)  # what Triton runs from an exported file as it is

FAMILIES = {"direct": 1, "files": 1, "compiled": 2}  # in the order of their turns, with their shares of the time

# Seconds that a preparation may take, as long as none was seen.
EXPECTED_SECONDS = {"compile": 60.0, "compile-max": 180.0, "onnxruntime-cuda": 60.0, "onnxruntime-tensorrt": 150.0}


@dataclass(frozen=True, order=True)
class Engine:
    """A way to run a network."""

    runtime: str  # one of RUNTIMES
    precision: str  # one of PRECISIONS
    layout: str

    @property
    def program(self) -> str:
        """The runtime without what is wrapped around it."""
        return self.runtime.partition("+")[0]

    @property
    def family(self) -> str:
        """One of FAMILIES: programs of the same tools, which take about as long to prepare."""
        return "compiled" if self.program.startswith("compile") else "files" if self.program in FILES else "direct"

    @property
    def graphed(self) -> bool:
        """Whether it replays a CUDA graph."""
        return self.runtime.endswith("+graph")

    @property
    def searches(self) -> bool:
        """Whether cuDNN tries its algorithms."""
        return "+search" in self.runtime

    def __str__(self) -> str:
        return f"{self.runtime}, {self.precision}, {self.layout}"


@dataclass(frozen=True)
class Cell:
    """One measurement: a way to run a network on a batch of clips."""

    model: str
    batch: int
    engine: Engine


@dataclass(frozen=True)
class Group:
    """Cells of one family that are measured in turns, with the baseline first."""

    model: str
    batch: int
    engines: tuple[Engine, ...]

    @property
    def family(self) -> str:
        """One of FAMILIES."""
        return self.engines[-1].family

    def cell(self, engine: Engine) -> Cell:
        """The cell of one of the engines."""
        return Cell(self.model, self.batch, engine)

    def __str__(self) -> str:
        last, runtimes = self.engines[-1], ", ".join(engine.runtime for engine in self.engines[1:])
        return f"{self.model}, batch {self.batch}, {last.precision}, {last.layout}, {runtimes}"


# The network as PyTorchVideo builds it; every other engine has fused attention.
BASELINE = Engine("baseline", "fp32", "contiguous")


def plan_groups(
    models: Sequence[str],
    *,
    batches: Sequence[int] = FIRST_BATCHES + LATER_BATCHES,
    precisions: Sequence[str] = PRECISIONS,
    runtimes: Sequence[str] = RUNTIMES,
) -> list[Group]:
    """All groups, of each model and family the most telling first."""
    first = [batch for batch in batches if batch not in LATER_BATCHES]
    later = [batch for batch in batches if batch in LATER_BATCHES]
    # One program (a precision in a layout) after the other: each takes seconds to prepare and runs every batch.
    programs = [(precision, layout) for layout in LAYOUTS for precision in precisions]
    half = [(precision, layout) for precision, layout in programs if precision in ("fp16", "bf16")] or programs
    files = [(precision, ANY_LAYOUT) for precision in precisions]
    waves = (
        (DIRECT, programs, first),
        (("torchscript+search+graph", "eager+graph"), half, first),
        (("torchscript", "torchscript+graph"), programs, later),
        (FILES, files, first),
        (COMPILED, half, first),
        (EXPENSIVE, half[:1], first),
        (COMPILED, half, later),
    )
    groups = []
    for wave_runtimes, wave_programs, wave_batches in waves:
        wanted = [runtime for runtime in wave_runtimes if runtime in runtimes]
        for precision, layout in wave_programs if wanted else ():
            engines = tuple(Engine(runtime, precision, layout) for runtime in wanted)
            groups += [Group(model, batch, (BASELINE, *engines)) for model in models for batch in wave_batches]
    return groups
