"""Lines in an object store: a folder of objects, because no store can append to one.

`s3://bucket/results/` holds `part-00000-1f3a9c0e.jsonl` and further parts, and `job.json` with the job's settings.
Nothing locks the folder.
"""

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest, VideoNotReadable
from clipserve.jobs.line_file import LineFile, check_settings, explain_settings
from clipserve.sources.remote_paths import RemotePath, is_remote
from clipserve.sources.stores import Store, store_errors
from clipserve.tables.formats import write_json

# A part is stored when it is as old, or as large; lines of an unfinished one are lost with this process.
PART_SECONDS = 60.0
PART_BYTES = 64 * 1024 * 1024


class LineParts:
    """As `LineFile`, in a store. A line is stored after a minute at the latest, or by `close`.

    Raises:
        InvalidRequest: the folder was started with other settings, no job wrote it, or the store cannot be used.
    """

    def __init__(self, address: str, settings: Mapping[str, Any]) -> None:
        self._folder = RemotePath.parse(address.rstrip("/") + "/")
        self._parts: list[RemotePath] = []
        self._begun = 0.0
        self._unfinished: IO[bytes] = tempfile.TemporaryFile(prefix="clipserve-")  # noqa: SIM115 - closed with this
        try:
            with self._reading():
                self._check_settings(settings)
        except BaseException as error:
            self._unfinished.close()
            if isinstance(error, VideoNotReadable):
                raise InvalidRequest(f"{error}. In a store --out is a folder that may be read and written") from None
            raise

    def read(self) -> Iterator[bytes]:
        """The lines of all parts; stores an unfinished one before. Raises VideoNotReadable, OSError."""
        self._store_part()
        for part in self._parts:
            with self._reading(), Store(part).open_binary() as file:
                yield from file

    def keep(self, wanted: Callable[[bytes], bool]) -> None:
        """Replace each part that has other lines by one with the wanted lines alone."""
        for part in self._parts:
            with Store(part).open_binary() as file:
                if all(map(wanted, file)):
                    continue
            with Store(part).open_binary() as file, open_atomically(str(part), "wb") as kept:
                kept.writelines(filter(wanted, file))

    def begin(self) -> None:
        """The folder exists from now on."""

    def append(self, line: str) -> None:
        """Add a line. Raises OSError: the store does not take a part."""
        if not self._unfinished.tell():
            self._begun = time.monotonic()
        self._unfinished.write(line.encode() + b"\n")
        if time.monotonic() - self._begun >= PART_SECONDS or self._unfinished.tell() >= PART_BYTES:
            self._store_part()

    def close(self) -> None:
        """Store the last part. Raises OSError: the store does not take it."""
        if self._unfinished.closed:
            return
        try:
            self._store_part()
        finally:
            self._unfinished.close()

    @property
    def _name(self) -> str:
        return self._folder.shown

    def _reading(self) -> AbstractContextManager[None]:
        return store_errors(f"cannot read the results {self._name!r}", self._name)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        store = Store(self._folder)
        found = {item.name: item.address for item in store.list()} if store.is_folder() else {}
        if found and "job.json" not in found:
            raise InvalidRequest(f"{self._name!r} is not empty, and no job wrote it: choose another --out")
        self._parts = [found[name] for name in sorted(found) if name.startswith("part-")]
        before: dict[str, Any] = {}
        if found:
            wrong = f"{found['job.json'].shown!r} is not what a job writes"
            with Store(found["job.json"]).open_text(None) as file, explain_settings(wrong):
                before = dict(json.load(file))
        if self._parts:
            check_settings(self._name, before, settings)
        elif before != settings:  # also after a job with a wrong model, which stored no line
            with open_atomically(str(self._folder.join("job.json"))) as file:
                file.write(write_json(dict(settings), indent=2) + "\n")

    def _store_part(self) -> None:
        if not self._unfinished.tell():
            return
        # Random, so that two jobs by mistake overwrite nothing; the next run notices rows that are there twice.
        part = self._folder.join(f"part-{len(self._parts):05}-{secrets.token_hex(4)}.jsonl")
        self._unfinished.seek(0)
        with open_atomically(str(part), "wb") as file:
            file.writelines(self._unfinished)
        self._parts.append(part)
        self._unfinished.seek(0)
        self._unfinished.truncate()


def open_lines(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> LineFile | LineParts:
    """The lines of a job: a file, or parts in a store. Raises what both raise."""
    return LineParts(str(path), settings) if is_remote(path) else LineFile(path, settings)
