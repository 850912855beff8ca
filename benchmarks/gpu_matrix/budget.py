"""How much time is left, and whether what comes next fits into it."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpu_matrix.cells import EXPECTED_SECONDS, Cell


class Budget:
    """`seconds` from now on, by a clock that can be another."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._seen: dict[tuple[str, str], float] = {}

    @property
    def left(self) -> float:
        """Seconds; below zero when there is none."""
        return self._end - self._clock()

    def allows(self, cell: Cell, *, prepared: bool) -> bool:
        """Whether there is time for it. A compiler cannot be stopped half-way, so it is asked what it may take."""
        return self.left > (0 if prepared else self.expect(cell))

    def expect(self, cell: Cell) -> float:
        """Seconds that its preparation may take: what it took before, or a guess."""
        program = cell.engine.program
        return self._seen.get((cell.model, program), EXPECTED_SECONDS.get(program, 0.0))

    def note(self, cell: Cell, seconds: float) -> None:
        """Remember what a preparation took."""
        key = (cell.model, cell.engine.program)
        self._seen[key] = max(seconds, self._seen.get(key, 0.0))
