"""Any module as a served network."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clipserve.contract import ClipContract
from clipserve_export.clips import random_clips
from clipserve_export.errors import ContractError
from clipserve_export.network import ActionNetwork
from clipserve_export.own.builder import describe_exception
from clipserve_export.own.interface import Interface
from clipserve_export.specs import ModelSpec

CHECKED_CLIPS, CHECKED_SEED = 2, 0
# Between the logits of a module, and those of its head on its embedding: both compute the same.
HEAD_TOLERANCE = 1e-4
SUM_TOLERANCE = 1e-3  # of probabilities
# Between the answers for the same clips in runs of other sizes, relative. In float16 they move by 1e-3; where clips are
# mixed, or dropout is on, by a tenth and more.
RUN_TOLERANCE = 1e-2


class OwnNetwork(ActionNetwork):
    """A module that turns a clip into logits, or into probabilities.

    With a head, `trunk` is the module without it, and the embedding is what the head is given.
    """

    def __init__(self, module: nn.Module, contract: ClipContract, interface: Interface, head: str | None) -> None:
        super().__init__(contract)
        self.interface = interface
        if head is not None:
            # Modules may be shared: the caller's stays as it is.
            module = copy.deepcopy(module)
            self.projection = get_linear(module, head).float()  # `embed` answers float32, also of a network in float16
            module.set_submodule(head, nn.Identity())
        self.trunk = module

    def embed(self, frames: Tensor) -> Tensor:
        """float [B, 3, T, S, S], normalised -> float [B, 1, D]."""
        return logits_of(self.trunk(self.interface.arrange(frames))).float().unsqueeze(1)

    def answer(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores, and the embedding if the module has a head."""
        if self.contract.feature_size is not None:
            return super().answer(frames)
        answers = logits_of(self.trunk(self.interface.arrange(frames))).float()
        return (answers.softmax(-1) if self.interface.answers == "logits" else answers), None


def logits_of(answers: Any) -> Tensor:
    """The tensor in what a module returns: itself, the first of several, or the one named logits."""
    if isinstance(answers, Tensor):
        return answers
    if isinstance(answers, Mapping) and isinstance(answers.get("logits"), Tensor):
        return answers["logits"]  # type: ignore[no-any-return]
    if isinstance(answers, tuple | list) and answers and isinstance(answers[0], Tensor):
        return answers[0]
    raise TypeError(f"it returns {type(answers).__name__}, but must return a tensor of logits")


def adapt_module(module: nn.Module, spec: ModelSpec, interface: Interface) -> OwnNetwork:
    """The module as a served network, whose contract states the classes and the size of its embedding.

    Raises ContractError where the contract of `spec` contradicts the module.
    """
    contract = spec.contract
    plain = OwnNetwork(module, replace(contract, feature_size=None), interface, None).eval()
    clips = random_clips(spec.geometry, batch=CHECKED_CLIPS, views=1, seed=CHECKED_SEED)[:, 0]
    with torch.no_grad():
        frames = interface.arrange(plain.normalise(clips))
        try:
            answers = logits_of(module(frames)).float()
        except Exception as error:  # whatever the module raises
            raise ContractError(
                f"the network does not take {interface.describe_input(contract)}, the clip of the contract:"
                f" {describe_exception(error)}. Correct frames, crop, or layout and type under [network] in the"
                " contract"
            ) from error
        require_answers(answers, contract, interface)
        require_any_number(lambda clips: logits_of(module(clips)).float(), frames, answers)
        head = find_head(module, frames, answers, interface)
    size = None if head is None else get_linear(module, head).in_features
    if contract.feature_size not in (None, size):
        found = f"{size} values" if size else "no nn.Linear at its end, whose input would be the embedding"
        raise ContractError(f"the contract says feature_size = {contract.feature_size}, but the network has {found}")
    known = replace(contract, classes=answers.shape[1], feature_size=size)
    return OwnNetwork(module, known, interface, head).eval().requires_grad_(False)


def require_answers(answers: Tensor, contract: ClipContract, interface: Interface) -> None:
    """Raise ContractError unless these are the answers of the contract, for CHECKED_CLIPS clips."""
    if answers.ndim != 2 or answers.shape[0] != CHECKED_CLIPS:
        raise ContractError(
            f"for {CHECKED_CLIPS} clips the network returns {list(answers.shape)}, but must return [{CHECKED_CLIPS},"
            " classes]: one row of logits for each clip"
        )
    if contract.classes not in (None, answers.shape[1]):
        raise ContractError(
            f"the contract says classes = {contract.classes}, but the network returns {answers.shape[1]} values"
        )
    if not bool(answers.isfinite().all()):
        raise ContractError(
            "the network returns NaN or infinite values: check its weights, and mean and deviation in the contract"
        )
    sums_to_one = bool((answers >= 0).all()) and bool(((answers.sum(1) - 1).abs() < SUM_TOLERANCE).all())
    if sums_to_one and interface.answers == "logits" and answers.shape[1] > 1:
        raise ContractError(
            "the network ends in a softmax: it returns probabilities, and the export would apply a second softmax."
            ' Leave the softmax out, or write answers = "probabilities" under [network] in the contract'
        )
    if not sums_to_one and interface.answers == "probabilities":
        raise ContractError(
            'the contract says answers = "probabilities", but the values of the network do not sum to 1: write'
            ' answers = "logits", or leave it out'
        )


def require_any_number(run: Callable[[Tensor], Tensor], clips: Tensor, answers: Tensor) -> None:
    """Raise ContractError unless one clip, and three, get the answers that they get in a run of CHECKED_CLIPS.

    run: the network. A server joins the clips of several requests, as many as wait.
    """
    for rows in ([0], [0, 1, 0]):
        try:
            found = run(clips[rows])
        except Exception as error:  # whatever the module, or a runtime, raises
            raise ContractError(
                f"the network takes {CHECKED_CLIPS} clips at once and not {len(rows)}: {describe_exception(error)}."
                " Any number must do: something inside, such as a view() or a squeeze(), depends on it"
            ) from error
        if found.shape != answers[rows].shape:
            raise ContractError(
                f"for {len(rows)} clips the network returns {list(found.shape)}, but must return"
                f" {list(answers[rows].shape)}: something inside, such as a squeeze() without a dimension, depends on"
                " the number of clips"
            )
        if bool((found - answers[rows]).abs().max() > RUN_TOLERANCE * answers.abs().max()):
            raise ContractError(
                f"the network's answers for a clip in a run of {len(rows)} and of {CHECKED_CLIPS} differ: it mixes the"
                " clips of a run, or it is random, as F.dropout(x) is without training=self.training"
            )


def find_head(module: nn.Module, frames: Tensor, answers: Tensor, interface: Interface) -> str | None:
    """The name of the nn.Linear that ends the module: without it, the module answers the embedding. None: no such.

    A head is searched from the last module on, and accepted where it turns what is left into the same logits. Raises
    ContractError where the contract names another one.
    """
    linears: dict[str, nn.Linear] = {
        name: part
        # A layer may have several names, such as `head` and `classifier.1`, and the network calls it by one of them.
        for name, part in module.named_modules(remove_duplicate=False)
        if name and isinstance(part, nn.Linear)
    }
    names = [name for name, part in linears.items() if part.out_features == answers.shape[1]]
    if interface.head:
        names = [interface.head]
        if interface.head not in linears:
            raise ContractError(
                f"[network] head is {interface.head!r}, but the network has no nn.Linear of this name; it has"
                f" {', '.join(linears) or 'none'}"
            )
    for name in reversed(names):
        if ends_with(module, name, frames, answers):
            return str(name)
    if interface.head:
        raise ContractError(
            f"[network] head is {interface.head!r}, but the network does not end with this layer: the layer's output is"
            " not the network's"
        )
    return None


def ends_with(module: nn.Module, head: str, frames: Tensor, answers: Tensor) -> bool:
    """Whether the module is a trunk, and then this head."""
    with without(module, head) as projection:
        try:
            embedding = logits_of(module(frames)).float()
        except Exception:  # the module needs the width of its head
            return False
    if embedding.shape != (answers.shape[0], projection.in_features):
        return False
    logits = projection(embedding.to(projection.weight.dtype)).float()
    return bool((logits - answers).abs().max() <= HEAD_TOLERANCE * answers.abs().max())


def get_linear(module: nn.Module, name: str) -> nn.Linear:
    """The submodule of this name."""
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


@contextmanager
def without(module: nn.Module, head: str) -> Iterator[nn.Linear]:
    """The module with nothing in place of its head, which is returned."""
    projection = get_linear(module, head)
    module.set_submodule(head, nn.Identity())
    try:
        yield projection
    finally:
        module.set_submodule(head, projection)
