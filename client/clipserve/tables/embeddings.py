"""Feature vectors of many videos, and the files that hold them."""

import csv
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from clipserve.atomic_files import open_atomically
from clipserve.errors import InvalidRequest, VideoNotReadable
from clipserve.extras import load
from clipserve.results import Row
from clipserve.sources.remote_paths import RemotePath, hide_secrets, is_remote
from clipserve.sources.stores import Store, store_errors
from clipserve.tables.table import Table, check_size

Kind = TypeVar("Kind")

# What files raise that nothing here wrote: numpy, csv and pyarrow, whose errors are ValueErrors and KeyErrors.
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, csv.Error)
FACTS = ("id", "video", "label", "truncated")  # the columns beside each vector
CHECKSUM = "crc32"  # of a vector's bytes, in a .csv: the .npy beside it may be that of an older run
BATCH_ROWS = 1024  # in a row group of a parquet file


@dataclass(frozen=True)
class Embeddings:
    """The feature vectors of many videos: `vectors[i]` belongs to `rows[i]`.

    Attributes:
        vectors: float32 [rows, D]; NaN for a failure that on_error="keep" left among the rows.
        rows: id, video and label of each vector.
        failures: the videos without a vector.
    """

    vectors: npt.NDArray[np.float32]
    rows: Sequence[Row] = field(repr=False)
    failures: Sequence[Row] = field(default=(), repr=False)

    @property
    def videos(self) -> list[str]:
        """Path, address or "<bytes>" of each row."""
        return [row.video for row in self.rows]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npy with a .csv beside it that names its rows, or a .parquet; see `write_vectors`."""
        write_vectors(self.rows, path)

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype) if copy else np.asarray(self.vectors, dtype=dtype)


def collect_embeddings(table: Table) -> Embeddings:
    """The vectors of a finished run."""
    return Embeddings(table.features, table.rows, table.failures)


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """What `write_vectors` wrote: `vectors[i]` belongs to `ids[i]`, `videos[i]`, `labels[i]` and `truncated[i]`.

    Attributes:
        vectors: float32 [rows, D].
    """

    vectors: npt.NDArray[np.float32]
    ids: Sequence[str]
    videos: Sequence[str]
    labels: Sequence[str | None]
    truncated: Sequence[bool]


def read_vectors(path: str | os.PathLike[str]) -> StoredVectors:
    """Read what `write_vectors` has written, here or in a store.

    Raises:
        InvalidRequest: it is no such file, an id, video or label is no text, a file beside it is missing, or pyarrow is
            not installed.
    """
    name = os.fspath(path)
    shown = repr(hide_secrets(name))
    read = _choose(name, {".npy": _read_npy, ".parquet": _read_parquet})
    try:
        stored = read(name)
    except (*UNREADABLE, VideoNotReadable) as error:
        raise InvalidRequest(f"{shown} does not have the vectors of `clipserve embed`: {error}") from error
    if stored.vectors.ndim != 2 or len(stored.vectors) != len(stored.ids):
        shape = list(stored.vectors.shape)
        raise InvalidRequest(
            f"{shown} has vectors of the shape {shape}, but {len(stored.ids)} names of rows: write"
            " both again with `clipserve embed`"
        )
    labels = [label for label in stored.labels if label is not None]
    for column, texts in (("id", stored.ids), ("video", stored.videos), ("label", labels)):
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise InvalidRequest(f"{shown} has the {column} {wrong[0]!r}, which is no text: write it as one")
    return stored


def _choose(name: str, kinds: Mapping[str, Kind]) -> Kind:
    """What `kinds` has for the suffix of a file. Raises InvalidRequest where it has nothing."""
    kind = kinds.get(PurePosixPath(name).suffix.lower())
    if kind is None:
        raise InvalidRequest(
            f"the name of a file of vectors must end in {' or '.join(kinds)}; got {hide_secrets(name)!r}"
        )
    return kind


def _read_npy(path: str) -> StoredVectors:
    with _open_stored(path) as file:
        vectors = np.load(file, allow_pickle=False)
    with _open_stored(_name_beside(path)) as file:
        records = list(csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")))
    vectors = np.asarray(vectors, np.float32)
    for record, vector in zip(records, vectors, strict=False):
        if record.get(CHECKSUM, checksum := _compute_checksum(vector)) != checksum:
            raise InvalidRequest(
                f"{hide_secrets(path)!r} and the .csv beside it are not of one run, as the vector of {record['id']!r}"
                " shows: write both again with `clipserve embed`"
            )
    return StoredVectors(
        vectors,
        [record["id"] for record in records],
        [record["video"] for record in records],
        [record["label"] or None for record in records],
        [record["truncated"] == "True" for record in records],
    )


def _compute_checksum(vector: "Vector") -> str:
    # With 0x, because a spreadsheet reads 12e34567 as a number.
    return f"{zlib.crc32(vector.astype('<f4', copy=False).tobytes()):#010x}"


def _read_parquet(path: str) -> StoredVectors:
    parquet = load("pyarrow.parquet", "data")
    with _open_stored(path) as file:
        columns = parquet.read_table(file).to_pydict()
    vectors = np.array(columns["features"], dtype=np.float32)
    truncated = [bool(value) for value in columns["truncated"]]
    return StoredVectors(vectors, columns["id"], columns["video"], columns["label"], truncated)


def write_vectors(rows: Iterable[Row], path: str | os.PathLike[str]) -> int:
    """Write the vectors of rows as the rows come. Return how many rows have a vector.

    `x.npy` holds the vectors, float32 [rows, D], and `x.csv` beside it the id, video, label and truncated of each,
    with a checksum of the vector, by which `read_vectors` finds a file of another run.
    `x.parquet` holds id, video, label, truncated and features in one file. Failures are left out. At most 1024 rows are
    in memory. A file gets its name when it is complete.

    Raises:
        InvalidRequest: the name has another suffix, a file that nothing here wrote has the name of the .csv, or
            pyarrow is not installed.
        UnexpectedAnswer: the vectors have different sizes.
    """
    kinds: dict[str, Callable[[str], AbstractContextManager[NpyFile | ParquetFile]]]
    kinds = {".npy": _open_npy, ".parquet": _open_parquet}
    name = os.fspath(path)
    size = 0
    with _choose(name, kinds)(name) as file:
        for row in rows:
            if row.prediction is not None and row.prediction.features is not None:
                size = size or row.prediction.features.size
                check_size(row.prediction.features, size, row)
                facts = (row.id, row.video, row.label, row.prediction.truncated)
                file.add(dict(zip(FACTS, facts, strict=True)), row.prediction.features)
        file.finish()
        return file.count


Vector: TypeAlias = npt.NDArray[np.float32]


@contextmanager
def _open_npy(path: str) -> Iterator["NpyFile"]:
    beside = _name_beside(path)
    _check_names(beside)
    # The vectors get their name last: where there is an x.npy, its x.csv is there, too.
    with open_atomically(path, "wb") as vectors, open_atomically(beside) as names:
        yield NpyFile(vectors, names)


def _check_names(path: str) -> None:
    """Raise InvalidRequest where another file has this name, which nobody gave: the list of the videos may be it."""
    header = b""
    with suppress(FileNotFoundError, VideoNotReadable), _open_stored(path) as file:
        header = file.readline()
    if header and not header.startswith(",".join(FACTS).encode()):
        raise InvalidRequest(
            f"{hide_secrets(path)!r} is to name the rows of the vectors, but there is another file of this name: choose"
            " another name for the vectors, or .parquet"
        )


def _name_beside(path: str) -> str:
    """The name of the file that names the rows of a .npy."""
    return path[: -len(".npy")] + ".csv"


@contextmanager
def _open_stored(path: str) -> Iterator[IO[bytes]]:
    """A file of this machine, or of a store, whose errors become VideoNotReadable."""
    if not is_remote(path):
        with Path(path).open("rb") as file:
            yield file
        return
    with store_errors("it cannot be read", path), Store(RemotePath.parse(path)).open_binary() as stored:
        yield stored


@contextmanager
def _open_parquet(path: str) -> Iterator["ParquetFile"]:
    pyarrow, parquet = load("pyarrow", "data"), load("pyarrow.parquet", "data")
    text, vector = pyarrow.string(), pyarrow.list_(pyarrow.float32())
    schema = pyarrow.schema([*zip(FACTS, (text, text, text, pyarrow.bool_()), strict=True), ("features", vector)])
    with open_atomically(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        yield ParquetFile(writer, partial(pyarrow.Table.from_pylist, schema=schema))


class NpyFile:
    """A .npy that grows. `finish` writes its header again, with the final number of rows."""

    def __init__(self, vectors: IO[bytes], names: IO[str]) -> None:
        self.count = 0
        self._vectors = vectors
        self._writer = csv.writer(names)
        self._writer.writerow((*FACTS, CHECKSUM))
        self._width = 0

    def add(self, facts: Mapping[str, Any], vector: Vector) -> None:
        """Append a row."""
        if not self.count:
            self._width = vector.size
            self._write_header()
        self.count += 1
        self._vectors.write(vector.astype("<f4", copy=False).tobytes())
        self._writer.writerow((*facts.values(), _compute_checksum(vector)))

    def finish(self) -> None:
        """Write the final header."""
        self._vectors.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that the first number of the shape may grow.
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)}
        np.lib.format.write_array_header_1_0(self._vectors, header)  # type: ignore[no-untyped-call]


class ParquetFile:
    """A .parquet file, written one row group at a time."""

    def __init__(self, writer: Any, make_table: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.count = 0
        self._writer = writer
        self._make_table = make_table
        self._batch: list[dict[str, Any]] = []

    def add(self, facts: Mapping[str, Any], vector: Vector) -> None:
        """Append a row."""
        self.count += 1
        self._batch.append({**facts, "features": vector})
        if len(self._batch) == BATCH_ROWS:
            self.finish()

    def finish(self) -> None:
        """Write the remaining rows."""
        if self._batch:
            self._writer.write_table(self._make_table(self._batch))
        self._batch = []
