"""The measuring: contestants take turns, slice by slice, while the others stand idle."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rivals.lineup import Contestant, Setting, describe
from rivals.process_tree import Usage
from rivals.seats import Seat

MakeSeat = Callable[[Contestant, Setting], Seat]
# Of two settings as good as each other, the first: with fewer videos waiting.
TIE = 1.03


@dataclass(frozen=True)
class Slice:
    """One turn of one contestant. Every duration in seconds; shares of all cores over the time of the slice."""

    key: str
    round: int
    seconds: float
    processor_seconds: float
    peak_bytes: int  # 0 where it was not watched
    others_share: float
    idle_share: float
    answers: tuple[Mapping[str, Any], ...]

    @property
    def answered(self) -> list[Mapping[str, Any]]:
        """Those without an error."""
        return [answer for answer in self.answers if not answer["error"]]

    @property
    def rate(self) -> float:
        """Videos answered a second."""
        return len(self.answered) / self.seconds

    @property
    def cost(self) -> float:
        """Processor seconds for each video answered."""
        return self.processor_seconds / max(len(self.answered), 1)


def take_turn(
    contestant: Contestant,
    seat: Seat,
    videos: Sequence[str],
    *,
    number: int,
    idle: Sequence[Seat] = (),
    watch_memory: bool = False,
) -> Slice:
    """One slice."""
    pids = [other.pid for other in idle]
    before, started = Usage.now(seat.pid, pids), time.perf_counter()
    concurrency = contestant.settings[0]["concurrency"] if contestant.seat else seat.setting["concurrency"]
    reply, peak = seat.classify(videos, concurrency=concurrency, watch_memory=watch_memory)
    seconds, used = time.perf_counter() - started, Usage.now(seat.pid, pids).since(before)
    capacity = seconds * len(os.sched_getaffinity(0))
    return Slice(
        key=contestant.key,
        round=number,
        seconds=reply["seconds"],
        processor_seconds=used.tree,
        peak_bytes=peak,
        others_share=used.others / capacity,
        idle_share=used.idle / capacity,
        answers=tuple(reply["answers"]),
    )


def say(turn: Slice, title: str, note: str = "") -> None:
    """A line of progress."""
    failed = len(turn.answers) - len(turn.answered)
    words = [f"{turn.rate:.2f} videos/s", f"{turn.cost:.2f} processor seconds a video"]
    words += [f"{failed} FAILED: {next(a['error'] for a in turn.answers if a['error'])}"] if failed else []
    words += [f"others took {turn.others_share:.0%}"] if turn.others_share > 0.05 else []
    print(f"  {title}{note}: {', '.join(words)}", flush=True)


def choose_setting(contestant: Contestant, videos: Sequence[str], make_seat: MakeSeat) -> Setting:
    """The setting with the most videos a second, each tried alone on the machine, after a warming run."""
    if len(contestant.settings) == 1:
        return contestant.settings[0]
    best, most = contestant.settings[0], 0.0
    for setting in contestant.settings:
        with make_seat(contestant, setting) as seat:
            seat.wait_until_ready()
            take_turn(contestant, seat, videos[:2], number=-1)
            turn = take_turn(contestant, seat, videos, number=-1)
        say(turn, contestant.title, f" ({describe(setting)})")
        if turn.rate > most * TIE:
            best, most = setting, turn.rate
    return best


def ask_all_to_stop(seats: Iterable[Seat]) -> None:
    """So that they end side by side, not one after the other."""
    for seat in seats:
        seat.ask_to_stop()


def measure(
    contestants: Sequence[Contestant],
    settings: Mapping[str, Setting],
    videos: Sequence[str],
    make_seat: MakeSeat,
    *,
    rounds: int,
    slice_seconds: float,
) -> list[Slice]:
    """All slices: round 0, which warms up and watches the memory, then the rounds that count.

    A slice is the whole list, as often as fits into slice_seconds and at least once; every round has its own order of
    videos and begins with another contestant.
    """
    slices: list[Slice] = []
    with ExitStack() as stack:
        seats: dict[str, Seat] = {}
        print("starting all", flush=True)
        for one in contestants:
            if not one.seat:
                seats[one.key] = stack.enter_context(make_seat(one, settings[one.key]))
        stack.callback(ask_all_to_stop, seats.values())
        for seat in seats.values():
            seat.wait_until_ready()
        times: dict[str, int] = {}
        for number in range(rounds + 1):
            print(f"round {number} of {rounds}" if number else "warming up, watching memory", flush=True)
            shift = number % len(contestants)
            for one in [*contestants[shift:], *contestants[:shift]]:
                seat = seats[one.seat or one.key]
                batch = list(videos) * times.get(one.key, 1)
                random.Random(number).shuffle(batch)
                idle = [other for other in seats.values() if other is not seat]
                turn = take_turn(one, seat, batch, number=number, idle=idle, watch_memory=number == 0)
                say(turn, one.title)
                slices.append(turn)
                times.setdefault(one.key, max(1, round(slice_seconds / turn.seconds)))
    return slices
