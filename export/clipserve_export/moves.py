"""Changes of several files of a model repository that belong together: all of them are made, or none."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from clipserve_export.errors import RepositoryError


@dataclass(frozen=True)
class Move:
    """A rename of a file or a folder. It needs no space, and nobody sees half of the file.

    Attributes:
        ready: where it is, written completely.
        place: where it goes.
        before: a copy of the file at `place`, which comes back if a later move fails; None: nothing is there.
    """

    ready: Path
    place: Path
    before: Path | None = None


def prepare_texts(repository: Path, texts: Mapping[Path, str], folder: Path) -> list[Move]:
    """Write `texts`, by their paths in `repository`, into `folder`, beside copies of the files that they replace.

    Leaves out a text that is in its place already: a server in poll mode reloads a model whose file has a new time.
    """
    moves = []
    for path, text in texts.items():
        place, ready, before = repository / path, folder / "ready" / path, folder / "before" / path
        replaces = place.exists()
        if replaces and place.read_text() == text:
            continue
        ready.parent.mkdir(parents=True, exist_ok=True)
        ready.write_text(text)
        if replaces:
            before.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(place, before)
        moves.append(Move(ready, place, before if replaces else None))
    return moves


def make_moves(moves: Sequence[Move]) -> None:
    """Make the moves one after the other. If one fails, or the program is told to end, undo those before it.

    Raises:
        OSError: a move failed, and everything is as before.
        RepositoryError: a move failed, and another one cannot be undone.
    """
    try:
        for move in moves:
            move.place.parent.mkdir(parents=True, exist_ok=True)
            move.ready.replace(move.place)
    except BaseException:
        try:
            _undo(moves)
        except OSError as error:
            raise RepositoryError(
                f"a change failed in the middle, and {error.filename2 or error.filename} cannot be put back"
                f" ({error.strerror}): give the right to write there, and run the command again"
            ) from error
        raise


def _undo(moves: Sequence[Move]) -> None:
    # By what is there, and not by a count: a signal may come between a move and its count.
    for move in reversed(moves):
        if not move.ready.exists():
            if move.before:
                move.before.replace(move.place)
            else:
                move.place.replace(move.ready)
        if not move.place.exists():
            with suppress(OSError):  # it holds something else
                os.removedirs(move.place.parent)


def replace_texts(repository: Path, texts: Mapping[Path, str]) -> list[Path]:
    """Write `texts` by their paths in `repository`, all of them or none. Returns the files that have another text now.

    The caller holds the lock of the repository. Raises what `make_moves` raises.
    """
    places = {repository / path: text for path, text in texts.items()}
    changed = [place for place, text in places.items() if not place.exists() or place.read_text() != text]
    if not changed:
        return []
    # In the folder of a file that changes anyway: a server in poll mode reloads a model whose folder has news.
    beside = next((place.parent for place in changed if place.parent.is_dir()), changed[0].parent)
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".texts-", dir=beside) as folder:
        make_moves(prepare_texts(repository, texts, Path(folder)))
    return changed
