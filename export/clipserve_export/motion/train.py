"""Train the `motion` model: python -m clipserve_export.motion.train

Seeded; ten minutes on two cores. Writes motion.pt and motion.txt into this package, unless told another folder.
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

MEAN, STD = 0.45, 0.225
BATCH = 64
PEAK_RATE, WEIGHT_DECAY, SMOOTHING = 6e-3, 0.02, 0.05
AVERAGE_DECAY = 0.998  # of the weights that are kept, over steps

console = Console()


def _swapped(*pairs: tuple[str, str]) -> Tensor:
    """What each label is called when the names in `pairs` change places."""
    order = list(range(len(LABELS)))
    for one, other in pairs:
        order[LABELS.index(one)], order[LABELS.index(other)] = LABELS.index(other), LABELS.index(one)
    return torch.tensor(order)


_TURNS = ("rotating clockwise", "rotating counterclockwise")
_SIDEWAYS, _VERTICAL = ("moving left", "moving right"), ("moving up", "moving down")
# Of a clip [T, S, S, 3]: what is done to it, and what its motion is called then.
MIRROR = _swapped(_SIDEWAYS, _TURNS)
UPEND = _swapped(_VERTICAL, _TURNS)
TRANSPOSE = _swapped(("moving left", "moving up"), ("moving right", "moving down"), _TURNS)
REVERSE = _swapped(_SIDEWAYS, _VERTICAL, _TURNS, ("growing", "shrinking"))


def vary(clip: Tensor, label: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The clip seen in a mirror, upended, on its side, backwards, in other colours - and what it is called then."""

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
        # The edge is repeated, not wrapped: what leaves on one side must not come in on the other.
        rows, columns = (torch.arange(clip.shape[1]).add(by).clamp(0, clip.shape[1] - 1) for by in shift)
        clip = clip[:, rows][:, :, columns]
    return clip, label


def normalise(clips: Tensor) -> Tensor:
    """uint8 [N, T, S, S, 3] -> float [N, 3, T, S, S], in the memory layout that is fast."""
    return ((clips.float() / 255 - MEAN) / STD).permute(0, 4, 1, 2, 3)


def predict(network: nn.Module, clips: Tensor) -> Tensor:
    """Indices of the best labels, [N]."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(normalise(batch)).argmax(1) for batch in clips.split(BATCH)])


def fit(clips: Tensor, targets: Tensor, *, epochs: int, seed: int) -> nn.Module:
    """A network trained on the clips; gives the moving average of its weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = build_motion_network(classes=len(LABELS))
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    kept = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(clips) // BATCH * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        order = torch.randperm(len(clips), generator=generator)[: len(clips) // BATCH * BATCH]
        losses = []
        for batch in track(order.split(BATCH), f"epoch {epoch + 1} of {epochs}", console=console):
            varied = [vary(clips[number], targets[number], generator) for number in batch.tolist()]
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
        console.print(f"  loss {sum(losses[-50:]) / len(losses[-50:]):.3f}")
    trained: nn.Module = kept.module
    return trained


def show_confusion(targets: Tensor, answers: Tensor) -> None:
    """A row for each label: how often it was named, and what else it was called."""
    table = Table("motion", "accuracy", "called instead")
    for number, label in enumerate(LABELS):
        given = answers[targets == number]
        others = {LABELS[other]: int((given == other).sum()) for other in given.unique().tolist() if other != number}
        table.add_row(label, f"{float((given == number).float().mean()):.3f}", str(others or ""))
    console.print(table, f"accuracy on held-out clips: {float((targets == answers).float().mean()):.4f}")


def train(
    *,
    clips: Annotated[int, typer.Option(help="Scenes to draw; each is seen in many variations.")] = 16_000,
    epochs: Annotated[int, typer.Option(help="How often each scene is seen.")] = 4,
    seed: Annotated[int, typer.Option(help="Of scenes and weights.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for motion.pt and motion.txt.")] = Path(__file__).parent,
) -> None:
    """Train the motion model and write its checkpoint and label file."""
    started, cores = time.monotonic(), len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    with console.status(f"drawing {clips} scenes"):
        pixels, targets = draw_clips(clips, seed=seed, workers=cores)
        # Another first number, so no scene of one set is in the other; tests and demo draw from a third (videos.py).
        held_pixels, held_targets = draw_clips(2400, seed=seed + 1_000_003, workers=cores)
    console.print(f"{len(pixels)} scenes drawn in {time.monotonic() - started:.0f} s")
    network = fit(pixels, targets, epochs=epochs, seed=seed)
    show_confusion(held_targets, predict(network, held_pixels))
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    torch.save({"model_state": state}, out / "motion.pt")
    (out / "motion.txt").write_text("".join(f"{label}\n" for label in LABELS))
    console.print(f"written to {out} after {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    typer.run(train)
