"""Train the `motion` model: python -m clipserve_export.motion.train

Seeded. Writes motion.pt and motion.txt into this package, unless told another folder. Drawing the scenes takes three
minutes and training twenty on one core of a machine with two (Xeon with AVX-512) whose other core was busy.
"""

import os
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clipserve_export.motion.clips import draw_clips
from clipserve_export.motion.network import build_motion_network
from clipserve_export.motion.scenes import LABELS
from clipserve_export.network import ActionNetwork
from clipserve_export.specs import SPECS

BATCH = 32
PEAK_RATE, WEIGHT_DECAY, SMOOTHING = 5e-3, 0.02, 0.05
# Of the moving average of the weights. With a much slower decay it would keep weights of the middle of training.
AVERAGE_DECAY = 0.995
STEPS_PER_REPORT = 100

console = Console()


def _swapped(*pairs: tuple[str, str]) -> Tensor:
    """The index of each label after the labels in `pairs` are exchanged."""
    order = list(range(len(LABELS)))
    for one, other in pairs:
        order[LABELS.index(one)], order[LABELS.index(other)] = LABELS.index(other), LABELS.index(one)
    return torch.tensor(order)


_TURNS = ("rotating clockwise", "rotating counterclockwise")
_SIDEWAYS, _VERTICAL = ("moving left", "moving right"), ("moving up", "moving down")
# Transformations of a clip [T, S, S, 3], and the labels after them.
MIRROR = _swapped(_SIDEWAYS, _TURNS)
UPEND = _swapped(_VERTICAL, _TURNS)
TRANSPOSE = _swapped(("moving left", "moving up"), ("moving right", "moving down"), _TURNS)
REVERSE = _swapped(_SIDEWAYS, _VERTICAL, _TURNS, ("growing", "shrinking"))


def vary(clip: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The clip mirrored, upside down, rotated, reversed, in other colours, and its label then."""

    def chance(share: float) -> bool:
        return float(torch.rand((), generator=generator)) < share

    for dims, names in (((2,), MIRROR), ((1,), UPEND), ((0,), REVERSE)):
        if chance(0.5):
            clip, label = clip.flip(dims), names[label]
    if chance(0.5):
        clip, label = clip.transpose(1, 2), TRANSPOSE[label]
    if chance(0.5):
        clip = clip[..., torch.randperm(3, generator=generator)]
    if chance(0.3):
        clip = 255 - clip
    shift = torch.randint(-4, 5, (2,), generator=generator).tolist()
    if chance(0.3):
        # The edge is repeated, not wrapped: a shape that leaves on one side must not enter on the other.
        rows, columns = (torch.arange(clip.shape[1]).add(by).clamp(0, clip.shape[1] - 1) for by in shift)
        clip = clip[:, rows][:, :, columns]
    return clip, label


def predict(network: nn.Module, clips: Tensor) -> Tensor:
    """Indices of the best labels, [N]."""
    normalise = ActionNetwork(SPECS["motion"].contract).normalise
    network.eval()
    with torch.no_grad():
        return torch.cat([network(normalise(batch)).argmax(1) for batch in clips.split(BATCH)])


def fit(clips: Tensor, targets: Tensor, *, steps: int, seed: int) -> nn.Module:
    """Train a network on the clips. Returns it with the moving average of its weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network, normalise = build_motion_network(classes=len(LABELS)), ActionNetwork(SPECS["motion"].contract).normalise
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    kept = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.2)
    epochs = -(-steps * BATCH // len(clips))
    order = torch.cat([torch.randperm(len(clips), generator=generator) for _ in range(epochs)])
    losses = []
    for step in track(range(steps), "training", console=console):
        batch = order[step * BATCH : (step + 1) * BATCH].tolist()
        varied = [vary(clips[number], targets[number], generator) for number in batch]
        pixels, names = torch.stack([clip for clip, _ in varied]), torch.stack([name for _, name in varied])
        network.train()
        loss = cross_entropy(network(normalise(pixels)), names, label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        kept.update_parameters(network)
        losses.append(loss.item())
        if len(losses) == STEPS_PER_REPORT:
            console.print(f"step {step + 1} of {steps}: loss {sum(losses) / len(losses):.3f}")
            losses.clear()
    trained: nn.Module = kept.module
    return trained


def show_confusion(targets: Tensor, answers: Tensor) -> None:
    """A row for each label: how often it was recognised, and the wrong labels."""
    table = Table("motion", "accuracy", "called instead")
    for number, label in enumerate(LABELS):
        given = answers[targets == number]
        others = {LABELS[other]: int((given == other).sum()) for other in given.unique().tolist() if other != number}
        table.add_row(label, f"{float((given == number).float().mean()):.3f}", str(others or ""))
    console.print(table, f"accuracy on held-out clips: {float((targets == answers).float().mean()):.4f}")


def train(
    *,
    clips: Annotated[int, typer.Option(help="Scenes to draw; each is seen in many variations.")] = 16_000,
    steps: Annotated[int, typer.Option(help=f"Batches of {BATCH} to learn from.")] = 2750,
    threads: Annotated[int, typer.Option(help="Of the training; 0 is one a core.")] = 1,
    seed: Annotated[int, typer.Option(help="Of scenes and weights.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for motion.pt and motion.txt.")] = Path(__file__).parent,
) -> None:
    """Train the motion model and write its checkpoint and label file.

    One thread gives the same weights every time on a machine, and two gain little: as soon as anything else runs, each
    waits for the other in every operation (measured: 0.4 s a step of 32 clips with one, 1.7 s with two).
    """
    started, cores = time.monotonic(), len(os.sched_getaffinity(0))
    with console.status(f"drawing {clips} scenes"):
        pixels, targets = draw_clips(clips, seed=seed, workers=cores)
        # Another seed, so that no scene is in both sets; tests and the demo use a third (videos.py).
        held_pixels, held_targets = draw_clips(2400, seed=seed + 1_000_003, workers=cores)
    console.print(f"{len(pixels)} scenes drawn in {time.monotonic() - started:.0f} s")
    torch.set_num_threads(threads or cores)
    network = fit(pixels, targets, steps=steps, seed=seed)
    show_confusion(held_targets, predict(network, held_pixels))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    torch.save({"model_state": state}, out / "motion.pt")
    (out / "motion.txt").write_text("".join(f"{label}\n" for label in LABELS))
    console.print(f"written to {out} after {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    typer.run(train)
