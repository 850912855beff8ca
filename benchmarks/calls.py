"""Requests to a server, so many at a time (closed loop) or so many a second (open loop), and what became of them."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clipserve.retry import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS

Ask = Callable[[], Awaitable[Any]]
REFUSED = "StatusCode.UNAVAILABLE"
DEADLINE_SECONDS = 120.0


@dataclass
class Calls:
    """What became of the requests of one measurement; every duration in seconds."""

    seconds: float = 0.0  # from the first request to the last answer that counts
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # told that the server is busy
    failed: dict[str, int] = field(default_factory=dict)  # anything else, by its status

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """Of the latency of answers; NaN where there is none."""
        return float(np.percentile(self.answered, percent)) if self.answered else float("nan")

    @property
    def median(self) -> float:
        """Of the latency of answers; NaN where there is none."""
        return statistics.median(self.answered) if self.answered else float("nan")

    async def make(self, ask: Ask) -> bool:
        """One request; says whether it was answered."""
        started = time.perf_counter()
        try:
            await ask()
        except InferenceServerException as error:
            taken = time.perf_counter() - started
            if error.status() == REFUSED:
                self.refused.append(taken)
            else:
                self.failed[str(error.status())] = self.failed.get(str(error.status()), 0) + 1
            return False
        self.answered.append(time.perf_counter() - started)
        return True


async def keep_asking(asks: Sequence[Ask], seconds: float) -> Calls:
    """Closed loop: each of `asks` again as soon as it is answered. What is not answered in time does not count.

    One that is refused waits as the client does, longer each time in a row.
    """
    calls = Calls()
    end = time.perf_counter() + seconds

    async def repeat(ask: Ask) -> None:
        in_a_row = 0
        while time.perf_counter() < end:
            in_a_row = 0 if await calls.make(ask) else in_a_row + 1
            if in_a_row:
                longest = min(FIRST_RETRY_SECONDS * 2 ** (in_a_row - 1), LONGEST_RETRY_SECONDS)
                await asyncio.sleep(min(random.uniform(0, longest), max(end - time.perf_counter(), 0)))

    started = time.perf_counter()
    tasks = [asyncio.create_task(repeat(ask)) for ask in asks]
    await asyncio.sleep(seconds)
    counted = Calls(time.perf_counter() - started, list(calls.answered), list(calls.refused), dict(calls.failed))
    await asyncio.gather(*tasks)
    return counted


async def ask_at_rate(ask: Ask, rate: float, seconds: float) -> Calls:
    """Open loop: `rate` requests a second, whatever becomes of them. Answers after the end do not count."""
    calls = Calls()
    started = time.perf_counter()
    tasks = set[asyncio.Task[bool]]()
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(started + number / rate - time.perf_counter(), 0))
        tasks.add(asyncio.create_task(calls.make(ask)))
    await asyncio.sleep(max(started + seconds - time.perf_counter(), 0))
    counted = Calls(time.perf_counter() - started, list(calls.answered), list(calls.refused), dict(calls.failed))
    await asyncio.gather(*tasks)
    return counted


def ask_for_labels(
    client: InferenceServerClient,
    model: str,
    videos: Sequence[bytes],
    parameters: Mapping[str, str | int | float] | None = None,
) -> Ask:
    """A request for the top five of each of `videos`, in one batch."""
    tensor = InferInput("VIDEO", [len(videos), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[video] for video in videos], dtype=np.object_))
    outputs = [InferRequestedOutput("SCORES", class_count=5)]

    async def ask() -> Any:
        return await client.infer(
            model, [tensor], outputs=outputs, parameters=dict(parameters or {}), client_timeout=DEADLINE_SECONDS
        )

    return ask
