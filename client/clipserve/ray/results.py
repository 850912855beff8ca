"""A folder of results: parquet files that appear whole, and the settings that all their rows were made with.

    results/_job.json              the settings; readers of parquet leave out names that begin with _ or .
    results/part-1f3a….parquet     the rows of one batch

A file's name is made from the ids in it, so a task that Ray runs twice writes the same file twice. The folder is what a
job goes on from: there is no other record of what is done. `WindowFolder` has the rows of windows.
"""

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs
from ray.data import Datasink
from ray.data.block import BlockAccessor

from clipserve.errors import InvalidRequest
from clipserve.jobs.journal import FINAL_CODES
from clipserve.jobs.line_file import describe_differences
from clipserve.ray.columns import ID
from clipserve.sources.remote_paths import hide_secrets

SETTINGS = "_job.json"
PARTIAL = ".writing-"  # begins the name of a file that is not whole yet
READERS = 16  # files at a time, when a folder is read


@dataclass(frozen=True)
class DoneIds:
    """The ids that need no work, 16 bytes each: BLAKE2 of the id, sorted.

    Two of a billion different ids share one with a probability of 1e-21.
    """

    digests: npt.NDArray[np.void]

    @classmethod
    def of(cls, ids: Iterable[str]) -> "DoneIds":
        """Those of these ids."""
        found = digest(ids)
        return cls(found[np.argsort(found, order=("high", "low"))])

    def __len__(self) -> int:
        return len(self.digests)

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """bool [ids]: which of them are done."""
        wanted = digest(ids)
        if not len(self):
            return np.zeros(len(wanted), np.bool_)
        # searchsorted has no order for pairs: find the first of equal high halves, which hardly ever are two.
        high = self.digests["high"]
        first = np.searchsorted(high, wanted["high"])
        last = np.searchsorted(high, wanted["high"], side="right")
        return np.array(
            [low in self.digests["low"][a:b] for low, a, b in zip(wanted["low"], first, last, strict=True)], np.bool_
        )


def digest(ids: Iterable[str]) -> npt.NDArray[np.void]:
    """BLAKE2 of each id, as two numbers of 64 bits."""
    joined = b"".join(hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=16).digest() for id in ids)
    return np.frombuffer(joined, [("high", "<u8"), ("low", "<u8")])


@dataclass(frozen=True)
class Written:
    """What one write task has written. rows: one for each video."""

    rows: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    truncated: int = 0


class ResultFolder:
    """The folder `out`: a path, or an address that pyarrow knows (s3://, gs://, hdfs://, ...).

    Raises:
        InvalidRequest: the address is of no known kind, or the folder holds something else.
    """

    def __init__(self, out: str) -> None:
        self.path: str
        try:
            self.filesystem, self.path = fs.FileSystem.from_uri(out) if "://" in out else _open_local(out)
            self.filesystem.create_dir(self.path, recursive=True)
        except (OSError, ValueError, NotImplementedError) as error:
            # Not `from error`: its text may hold the address.
            raise InvalidRequest(hide_secrets(f"results cannot be written to {out!r}: {error}")) from None
        self.out = hide_secrets(out)  # for messages

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Note the settings in a folder without results; in one that has some, compare.

        Raises:
            InvalidRequest: the results were started with other settings, or no job wrote them.
        """
        path = f"{self.path}/{SETTINGS}"
        begun = bool(self._list())
        if self.filesystem.get_file_info(path).type == fs.FileType.NotFound:
            if begun:
                raise InvalidRequest(f"{self.out!r} has parquet files of no job: choose another folder")
            before = {}
        else:
            with self.filesystem.open_input_stream(path) as file:
                text = file.read()
            try:
                before = dict(json.loads(text))
            except (ValueError, TypeError):
                raise InvalidRequest(
                    f"{SETTINGS} of {self.out!r} is not what a job writes: choose another folder"
                ) from None
        if not begun:  # such as after a job with a wrong model, which wrote no row
            if before != settings:
                self._write(path, json.dumps(dict(settings), indent=2).encode())
            return
        if differences := describe_differences(before, settings):
            raise InvalidRequest(
                f"{self.out!r} was started with {differences}: continue with the same settings, or choose another"
                " folder"
            )

    def find_done(self) -> DoneIds:
        """The ids whose rows are final. Removes the rows that another run may turn into predictions, and what a killed
        job left unfinished.
        """
        self._remove_partial()
        with ThreadPoolExecutor(READERS) as pool:
            ids = [id for found in pool.map(self._read_final, self._list()) for id in found]
        return DoneIds.of(ids)

    def write(self, table: pa.Table) -> None:
        """Write the rows as a file, which appears when it is whole."""
        keys = "\n".join(sorted(self._list_keys(table)))
        name = hashlib.blake2b(keys.encode(errors="surrogatepass"), digest_size=16)
        self._write(f"{self.path}/part-{name.hexdigest()}.parquet", _pack(table))

    def _list_keys(self, table: pa.Table) -> list[str]:
        """What tells the rows from those of all other files."""
        return list(map(str, table[ID].to_pylist()))

    def _list(self) -> list[str]:
        found = self.filesystem.get_file_info(fs.FileSelector(self.path))
        return [info.path for info in found if info.base_name.endswith(".parquet") and info.base_name[0] not in "._"]

    def _remove_partial(self) -> None:
        """What a job left that was killed as it wrote."""
        for info in self.filesystem.get_file_info(fs.FileSelector(self.path)):
            if info.base_name.startswith(PARTIAL):
                self.filesystem.delete_file(info.path)

    def _read_final(self, path: str) -> list[str]:
        head = self._read_columns(path, [ID, "error"])
        final = is_final(head["error"])
        self._keep(path, final)
        return [str(id) for id in head[ID].filter(final).to_pylist()]

    def _read_columns(self, path: str, names: list[str]) -> pa.Table:
        try:
            with self.filesystem.open_input_file(path) as file:
                found = pq.read_table(file, columns=names)
            if found.column_names != names:
                raise ValueError(f"it has not all of the columns {', '.join(map(repr, names))}")
        except ValueError as error:  # pyarrow's ArrowInvalid is one
            raise InvalidRequest(
                f"{path!r} cannot be read as results ({error}): remove it, and its videos are classified again"
            ) from error
        return found

    def _keep(self, path: str, wanted: pa.ChunkedArray) -> None:
        """Leave these rows of a file alone."""
        if pc.all(wanted).as_py():
            return
        with self.filesystem.open_input_file(path) as file:
            kept = pq.read_table(file).filter(wanted)
        if len(kept):
            self._write(path, _pack(kept))
        else:
            self.filesystem.delete_file(path)

    def _write(self, path: str, content: Any) -> None:
        folder, _, name = path.rpartition("/")
        partial = f"{folder}/{PARTIAL}{name}.{secrets.token_hex(4)}"
        with self.filesystem.open_output_stream(partial) as file:
            file.write(content)
        self.filesystem.move(partial, path)


class WindowFolder(ResultFolder):
    """Rows are windows. A video is done when the folder has all of its windows; Ray may spread them over files."""

    def find_done(self) -> DoneIds:
        """As `ResultFolder.find_done`. Removes the windows of videos that are not done."""
        self._remove_partial()
        files = self._list()
        if not files:
            return DoneIds.of(())
        with ThreadPoolExecutor(READERS) as pool:
            videos = _count_windows(pa.concat_tables(pool.map(self._read_counts, files)))
            final = pc.equal(videos["again"], 0)
            done = pc.fill_null(pc.and_(final, pc.equal(videos["found"], videos["windows"])), False)
            left = videos[ID].filter(pc.invert(done)).combine_chunks()
            for _ in pool.map(partial(self._leave_out, left), files):
                pass
        return DoneIds.of(map(str, videos[ID].filter(done).to_pylist()))

    def _list_keys(self, table: pa.Table) -> list[str]:
        return [f"{row[ID]}\t{row['window']}" for row in table.select([ID, "window"]).to_pylist()]

    def _read_counts(self, path: str) -> pa.Table:
        head = self._read_columns(path, [ID, "window", "windows", "error"])
        found = pc.cast(pc.is_valid(head["window"]), pa.int64())
        again = pc.cast(pc.invert(is_final(head["error"])), pa.int64())
        return _count_windows(pa.table({ID: head[ID], "found": found, "windows": head["windows"], "again": again}))

    def _leave_out(self, left: pa.Array, path: str) -> None:
        with self.filesystem.open_input_file(path) as file:
            ids = pq.read_table(file, columns=[ID])[ID]
        self._keep(path, pc.invert(pc.is_in(ids, left)))


def is_final(errors: pa.ChunkedArray) -> pa.ChunkedArray:
    """bool: which of these codes, null for a success, stay when a job is run again."""
    return pc.or_(pc.is_null(errors), pc.is_in(errors, pa.array(sorted(FINAL_CODES))))


def _count_windows(table: pa.Table) -> pa.Table:
    """For each id: windows that were found, windows that there are (null if no row says it), failures to try again."""
    sums = table.group_by(ID).aggregate([("found", "sum"), ("windows", "max"), ("again", "sum")])
    return pa.table(
        {ID: sums[ID], "found": sums["found_sum"], "windows": sums["windows_max"], "again": sums["again_sum"]}
    )


def _open_local(path: str) -> tuple[fs.FileSystem, str]:
    # Tasks that write have other working folders.
    return fs.LocalFileSystem(), os.path.abspath(path)  # noqa: PTH100 - as a text


def _pack(table: pa.Table) -> Any:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue()


class ResultSink(Datasink[Written]):  # type: ignore[misc]  # Ray is untyped here
    """Writes blocks into a folder; `written` has the counts of all tasks when they have ended."""

    def __init__(self, folder: ResultFolder) -> None:
        self._folder = folder
        self.written: list[Written] = []

    def write(self, blocks: Iterable[Any], ctx: Any) -> Written:
        """Called by Ray, in a task: one file for each block."""
        tables = [table for table in map(_read_block, blocks) if len(table)]
        for table in tables:
            self._folder.write(table)
        codes = [code.as_py() for table in tables for code in table["error"] if code.is_valid]
        return Written(
            rows=sum(len(pc.unique(table[ID])) for table in tables),
            failed=Counter(codes),
            truncated=sum(len(pc.unique(table[ID].filter(table["truncated"]))) for table in tables),
        )

    def on_write_complete(self, write_result: Any) -> None:
        """Called by Ray, in the driver."""
        self.written = list(write_result.write_returns)

    def get_name(self) -> str:
        """What Ray's progress calls it."""
        return "clipserve results"


def _read_block(block: Any) -> pa.Table:
    return BlockAccessor.for_block(block).to_arrow()
