"""Access to the files of a model repository: who may write, one program at a time, and what is said where none can."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipserve_export.errors import RepositoryError

NO_SPACE_BYTES = 1 << 20  # with less free, a writer that does not say why has failed for lack of space


@contextmanager
def explain_write_errors(repository: Path) -> Iterator[None]:
    """Raises RepositoryError where the system does not let a program write into `repository`."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename2 or error.filename})" if error.filename else ""
        remedy = ""
        if error.errno == errno.EXDEV:
            remedy = ". A publication renames files: put all folders of the repository on one file system"
        raise RepositoryError(
            f"{repository} cannot be written: {error.strerror or error}{place}; nothing was published{remedy}"
        ) from error


def require_writable(repository: Path) -> None:
    """Raise RepositoryError where no model could be published, before hours are spent on one."""
    there = next(folder for folder in (repository, *repository.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise RepositoryError(
            f"{repository} cannot be written: {os.strerror(errno.EACCES)} ({there}); give another --repository, or the"
            " right to write there"
        )


def require_space(folder: Path) -> None:
    """Raise OSError where `folder` is full: not every writer of a file says so."""
    if shutil.disk_usage(folder).free < NO_SPACE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One program at a time holds the lock of a folder, and others wait. The system unlocks it when a program ends.

    Who holds that of a repository may change its versions, and the configs that all models share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)  # unlocks it


def is_locked(folder: Path) -> bool:
    """Whether a program holds the lock of a folder; True where the file system has no locks."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(opened)
    return False
