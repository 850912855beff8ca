"""What there is to measure, and in which order: the most telling first, because the time may run out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FIRST_BATCHES, LATER_BATCHES = (8, 1, 32), (2, 4, 16)
PRECISIONS = ("fp16", "bf16", "tf32", "fp32")
LAYOUTS = ("channels_last_3d", "contiguous")
ANY_LAYOUT = "its own"
# "+search" lets cuDNN try its algorithms for each shape; "+graph" replays a CUDA graph.
DIRECT = ("eager", "torchscript", "torchscript+graph")
COMPILED = ("compile", "compile+graph")
FILES = ("onnxruntime-cuda", "onnxruntime-tensorrt")
EXPENSIVE = ("compile-max+graph",)
RUNTIMES = ("baseline", *DIRECT, "eager+graph", "torchscript+search+graph", *COMPILED, *EXPENSIVE, *FILES)
SERVED = ("torchscript", *FILES)  # what Triton runs from an exported file as it is

# Seconds that a preparation may take, before one was seen: first for one model and engine, then for every batch.
EXPECTED_SECONDS = {"compile": 60.0, "compile-max": 180.0, "onnxruntime-cuda": 60.0, "onnxruntime-tensorrt": 150.0}


@dataclass(frozen=True, order=True)
class Engine:
    """A way to run a network."""

    runtime: str  # one of RUNTIMES
    precision: str  # one of PRECISIONS
    layout: str

    @property
    def program(self) -> str:
        """What makes the network a program, without what is wrapped around it."""
        return self.runtime.partition("+")[0]

    @property
    def graphed(self) -> bool:
        """Whether it is replayed as a CUDA graph."""
        return self.runtime.endswith("+graph")

    @property
    def searches(self) -> bool:
        """Whether cuDNN tries its algorithms."""
        return "+search" in self.runtime

    def __str__(self) -> str:
        return f"{self.runtime}, {self.precision}, {self.layout}"


@dataclass(frozen=True)
class Cell:
    """One measurement: a way to run a network, on so many clips at once."""

    model: str
    batch: int
    engine: Engine


@dataclass(frozen=True)
class Group:
    """Cells measured in turns, the baseline among them."""

    model: str
    batch: int
    engines: tuple[Engine, ...]

    def cell(self, engine: Engine) -> Cell:
        """The cell of one of the engines."""
        return Cell(self.model, self.batch, engine)


# The network as PyTorchVideo builds it; every other engine has fused attention.
BASELINE = Engine("baseline", "fp32", "contiguous")


def plan_groups(
    models: Sequence[str],
    *,
    batches: Sequence[int] = FIRST_BATCHES + LATER_BATCHES,
    precisions: Sequence[str] = PRECISIONS,
    runtimes: Sequence[str] = RUNTIMES,
) -> list[Group]:
    """All that is to be measured, in order."""
    first = [batch for batch in batches if batch not in LATER_BATCHES]
    later = [batch for batch in batches if batch in LATER_BATCHES]
    reduced = [precision for precision in precisions if precision in ("fp16", "bf16")] or list(precisions)
    waves = (
        (first, DIRECT, precisions, LAYOUTS),
        # A compiler takes a minute for each: one precision and layout first, which stand for the others.
        (first, COMPILED, reduced[:1], LAYOUTS[:1]),
        (first, FILES, precisions, LAYOUTS),
        (first, ("torchscript+search+graph",), reduced, LAYOUTS),
        (later, ("torchscript", "torchscript+graph"), precisions, LAYOUTS),
        (first, COMPILED, reduced[:1], LAYOUTS[1:]),
        (first, COMPILED, reduced[1:], LAYOUTS),
        (first, EXPENSIVE, reduced[:1], LAYOUTS[:1]),
        (first, ("eager+graph",), reduced, LAYOUTS),
        (later, COMPILED, reduced, LAYOUTS),
    )
    groups = []
    for wave_batches, wave_runtimes, wave_precisions, layouts in waves:
        wanted = [runtime for runtime in wave_runtimes if runtime in runtimes]
        engines = tuple(_list_engines(wanted, wave_precisions, layouts))
        if engines:
            # One model after the other, so that one model's programs serve all its batches.
            groups += [Group(model, batch, (BASELINE, *engines)) for model in models for batch in wave_batches]
    return groups


def _list_engines(runtimes: Sequence[str], precisions: Sequence[str], layouts: Sequence[str]) -> Iterator[Engine]:
    for precision in precisions:
        for layout in layouts:
            yield from (Engine(runtime, precision, layout) for runtime in runtimes if runtime not in FILES)
        yield from (Engine(runtime, precision, ANY_LAYOUT) for runtime in runtimes if runtime in FILES)
