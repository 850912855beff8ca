"""How a new version comes into a model repository that servers read: written beside it, then moved in by renames."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from clipserve.contract import ClipContract
from clipserve_export.access import is_locked, locked
from clipserve_export.configs import DECODE, DEFAULTS, TIMELINE
from clipserve_export.formats import FORMATS, Format
from clipserve_export.moves import Move, make_moves, prepare_texts
from clipserve_export.records import read_record
from clipserve_export.repository import CONFIG, LABELS, VERSION, Chosen, code_texts, label_text, model_configs
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import ModelSpec

REPLACED = "replaced-"  # ahead of a version's number, in a staging folder: the version that was there before


@contextmanager
def staging(repository: Path, spec: ModelSpec) -> Iterator[Path]:
    """An empty version folder on the repository's file system, which Triton ignores. Removed afterwards.

    Triton ignores folders of a model whose names are no numbers. A version that was moved out for the new one comes
    back where that one was not published. The folder is locked as long as it is in use: a number of a process says
    nothing to the process of another container.
    """
    net = repository / spec.net_name
    with ExitStack() as use:
        with locked(repository):
            for stale in net.glob(".staging-*"):  # left by exports that were killed
                if not is_locked(stale):
                    _bring_back(stale, net)
                    shutil.rmtree(stale)
            folder = net / f".staging-{uuid4().hex}"
            use.enter_context(locked(folder))
        try:
            (folder / VERSION).mkdir()
            yield folder / VERSION
        finally:
            _bring_back(folder, net)
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # it is empty: nothing was published, and it had no other version
                net.rmdir()


def _bring_back(staged: Path, net: Path) -> None:
    for old in staged.glob(f"{REPLACED}*"):
        version = net / old.name.removeprefix(REPLACED)
        if not version.exists():
            old.rename(version)


def publish(
    repository: Path,
    spec: ModelSpec,
    form: Format,
    labels: Sequence[str],
    staged: Path,
    *,
    version: int = int(VERSION),
    serving: Serving = DEFAULTS,
    contract: ClipContract | None = None,
) -> Path:
    """Make the staged folder the model's version, with the configs and labels that fit it. Returns the folder.

    The caller holds the lock of the repository.

    Everything is written beside its place first, and then renamed. One rename moves an older version out, and another
    moves the new one in, after everything else is in place. So a server that polls sees a whole model, or none for an
    instant. A network in another format stays beside the new one, unused, for a server that has read the old config and
    is about to load it. If a rename fails, or the program is told to end, those before it are undone.

    Raises:
        OSError: nothing was published.
        RepositoryError: the same, or a rename cannot be undone.
    """
    folder = repository / spec.net_name / str(version)
    contract = replace(contract or spec.contract, classes=len(labels))
    chosen = Chosen(form=form, contract=contract, serving=serving)
    configs = model_configs(repository, spec, chosen, {version: read_record(staged)})

    def prepare(texts: Mapping[Path, str]) -> list[Move]:
        return prepare_texts(repository, texts, staged.parent)

    decode, timeline, own, public = (Path(name, CONFIG) for name in (DECODE, TIMELINE, spec.net_name, spec.name))
    moves = prepare(code_texts() | {decode: configs[decode], timeline: configs[timeline]})
    if folder.exists():
        for other in FORMATS.values():
            if other.name != form.name and (folder / other.filename).exists():
                shutil.copy(folder / other.filename, staged)  # not every file system has hard links
        moves.append(Move(folder, staged.parent / f"{REPLACED}{version}"))
    moves += prepare({Path(spec.net_name, LABELS): label_text(labels), own: configs[own]})
    moves.append(Move(staged, folder))
    moves += prepare({Path(spec.name, VERSION, ".gitkeep"): "", public: configs[public]})
    make_moves(moves)
    return folder
