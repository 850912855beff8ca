"""Feature vectors of many videos, and the files that hold them."""

import csv
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from clipserve.batches.rows import Row
from clipserve.errors import InvalidRequest
from clipserve.tables.table import Table

BATCH_ROWS = 1024  # of a parquet file's row group


@dataclass(frozen=True)
class Embeddings:
    """Row i of `vectors` belongs to `rows[i]`.

    Attributes:
        vectors: float32 [rows, D]; NaN for a failure that on_error="keep" left among the rows.
        rows: id, video and label of each.
        failures: the videos that have no vector.
    """

    vectors: npt.NDArray[np.float32]
    rows: Sequence[Row] = field(repr=False)
    failures: Sequence[Row] = field(default=(), repr=False)

    @property
    def videos(self) -> list[str]:
        """Path, address or "<bytes>" of each row."""
        return [row.video for row in self.rows]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npy, with a .csv beside it that says what its rows are, or a .parquet; see `write_vectors`."""
        write_vectors(self.rows, path)

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.vectors, dtype=dtype) if copy else np.asarray(self.vectors, dtype=dtype)


def collect_embeddings(table: Table) -> Embeddings:
    """The vectors of a drained run."""
    return Embeddings(table.features, table.rows, table.failures)


def write_vectors(rows: Iterable[Row], path: str | os.PathLike[str]) -> int:
    """Write rows as they come, with no more of them in memory than a thousand; gives how many have a vector.

    `x.npy` holds the vectors, float32 [rows, D], and `x.csv` beside it id, video, label and truncated of each.
    `x.parquet` holds all in one: id, video, label, truncated, features. Failures are left out. Files appear under their
    names when they are whole.

    Raises:
        InvalidRequest: the name ends otherwise, or pyarrow is missing.
    """
    with open_vectors(path) as file:
        for row in rows:
            file.add(row)
        return file.count


class VectorFile(Protocol):
    """A file of vectors that is being written; leaving it as a context finishes it, or, after an error, removes it."""

    count: int

    def add(self, row: Row) -> None:
        """Append a row that has features; others are left out."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_vectors(path: str | os.PathLike[str]) -> VectorFile:
    """Begin a file of vectors; its ending chooses the kind."""
    kinds: dict[str, type[VectorFile]] = {".npy": NpyFile, ".parquet": ParquetFile}
    kind = kinds.get(Path(path).suffix.lower())
    if kind is None:
        raise InvalidRequest(f"vectors are written to {' or '.join(kinds)}, got {os.fspath(path)!r}")
    return kind(Path(path))  # type: ignore[call-arg]


class NpyFile:
    """A .npy that grows: its header is written again at the end, with as many rows as there are."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path, self._names_path = path, path.with_suffix(".csv")
        self._vectors: IO[bytes] = _partial(path).open("wb")
        self._names = _partial(self._names_path).open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._names)
        self._writer.writerow(["id", "video", "label", "truncated"])
        self._width = 0

    def add(self, row: Row) -> None:
        if row.prediction is None or row.prediction.features is None:
            return
        vector = row.prediction.features
        if not self.count:
            self._width = vector.size
            self._write_header()
        self.count += 1
        self._vectors.write(vector.astype("<f4", copy=False).tobytes())
        self._writer.writerow([row.id, row.video, row.label, row.prediction.truncated])

    def _write_header(self) -> None:
        # numpy leaves room in the header for the first number of the shape to grow, for this very use.
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._width)}
        np.lib.format.write_array_header_1_0(self._vectors, header)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._vectors.seek(0)
            self._write_header()
        self._vectors.close()
        self._names.close()
        _finish([self._names_path, self._path], well=kind is None)


class ParquetFile:
    """A .parquet, written a row group at a time."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow  # type: ignore[import-untyped]
            from pyarrow import parquet
        except ImportError as missing:
            raise InvalidRequest(f"parquet needs pyarrow ({missing}): pip install 'clipserve[data]'") from missing
        self.count = 0
        self._path = path
        text, vector = pyarrow.string(), pyarrow.list_(pyarrow.float32())
        columns = {"id": text, "video": text, "label": text, "truncated": pyarrow.bool_(), "features": vector}
        self._schema = pyarrow.schema(columns)
        self._table_type = pyarrow.Table
        self._writer = parquet.ParquetWriter(os.fspath(_partial(path)), self._schema)
        self._batch: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        if row.prediction is None or row.prediction.features is None:
            return
        self.count += 1
        answer = {"truncated": row.prediction.truncated, "features": row.prediction.features}
        self._batch.append({"id": row.id, "video": row.video, "label": row.label, **answer})
        if len(self._batch) == BATCH_ROWS:
            self._write_batch()

    def _write_batch(self) -> None:
        self._writer.write_table(self._table_type.from_pylist(self._batch, self._schema))
        self._batch = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._batch:
            self._write_batch()
        self._writer.close()
        _finish([self._path], well=kind is None)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _finish(paths: list[Path], *, well: bool) -> None:
    for path in paths:
        if well:
            _partial(path).replace(path)
        else:
            with suppress(FileNotFoundError):
                _partial(path).unlink()
