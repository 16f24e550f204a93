"""The dataset's parts as a stream of vectors with the columns that go with them.

Layer: the bottom of `worker.embed.search`; reads only, one batch in memory at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pagemill_core.errors import IntegrityError, InvalidSpecError, ObjectNotFoundError
from pagemill_core.storage.store import ObjectStore
from pagemill_worker.plan.source_bytes import RangeFile

PREFIX = "dataset/run="
FINGERPRINT = b"pagemill.fingerprint"
BATCH_ROWS = 4096  # 8 MiB at 512 numbers a row
_PART = re.compile(r"^dataset/run=(\d{8})/part-(\d+)\.parquet$")

Matrix = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the dataset: the rows of one segment of run `seq`."""

    seq: int
    number: int
    key: str
    size_bytes: int


@dataclass(slots=True)
class RangedObject:
    """An object that can be read from anywhere. A part written again has the same bytes, so no token is asked for."""

    store: ObjectStore
    key: str
    size_bytes: int

    def read(self, start: int, length: int) -> bytes:
        return self.store.get_range(self.key, start, length)


def list_parts(store: ObjectStore) -> list[Part]:
    """Every part, newest run first, each run's in order. Raises: ObjectNotFoundError when there is none."""
    found = []
    for info in store.list(PREFIX):
        match = _PART.match(info.key)
        if match:
            found.append(Part(int(match[1]), int(match[2]), info.key, info.size))
    if not found:
        raise ObjectNotFoundError(
            f"{store.uri} holds no dataset", advice="check the URI, or finish the job first: pagemill run job.yaml"
        )
    return sorted(found, key=lambda part: (-part.seq, part.number))


def open_part(store: ObjectStore, part: Part) -> pq.ParquetFile:
    """The part as a Parquet file. Raises: IntegrityError when it is none."""
    return open_parquet(store, part.key, part.size_bytes)


def open_parquet(store: ObjectStore, key: str, size_bytes: int) -> pq.ParquetFile:
    """A Parquet object, read by ranges. Raises: IntegrityError when it is none."""
    try:
        return pq.ParquetFile(RangeFile(RangedObject(store, key, size_bytes)), buffer_size=4 << 20)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(
            f"{key} in {store.uri} is no Parquet file: {str(error)[:200]}", advice="pagemill verify --repair"
        ) from error


def fingerprint_of(file: pq.ParquetFile) -> str:
    """The fingerprint in the footer, "" where none is."""
    metadata = file.schema_arrow.metadata or {}
    return bytes(metadata.get(FINGERPRINT, b"")).decode()


def vector_columns(schema: pa.Schema) -> list[str]:
    """The names of columns that hold one vector a row."""
    return [field.name for field in schema if _is_vector(field.type)]


def require_column(schema: pa.Schema, column: str, where: str) -> None:
    """Raises: InvalidSpecError when `column` holds no vectors, naming those that do."""
    there = vector_columns(schema)
    if column in there:
        return
    advice = f"choose one of: {', '.join(there)}" if there else "name the output of an EmbeddingJob"
    raise InvalidSpecError(f"{where} has no vectors in a column {column!r}", advice=advice)


def has_vector(batch: pa.RecordBatch, column: str) -> Flags:
    """By row: whether it succeeded and has a vector."""
    valid = np.asarray(batch.column(column).is_valid().to_numpy(zero_copy_only=False), np.bool_)
    status = batch.column("status").to_numpy(zero_copy_only=False)
    return np.asarray(valid & (status == "succeeded"), np.bool_)


def matrix_of(column: pa.Array, where: str) -> Matrix:
    """The vectors of a column without nulls: shape (rows, dim), float32. Raises: IntegrityError for uneven ones."""
    if not len(column):
        return np.empty((0, 0), np.float32)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    rows, rest = divmod(len(flat), len(column))
    if rest or (not pa.types.is_fixed_size_list(column.type) and len(set(column.value_lengths().to_pylist())) > 1):
        raise IntegrityError(f"{where}: its vectors have several lengths")
    return np.ascontiguousarray(flat.reshape(-1, rows), np.float32)


def unit_rows(rows: Matrix) -> tuple[Matrix, Flags]:
    """(rows scaled to length 1, which of them could be): a row without length or with a NaN cannot."""
    lengths = np.linalg.norm(rows, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.asarray(rows[usable] / lengths[usable, None], np.float32), usable


def existing(schema: pa.Schema, wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that the schema has, in the order of `wanted`."""
    names = set(schema.names)
    return [name for name in wanted if name in names]


def iter_batches(file: pq.ParquetFile, columns: Sequence[str], where: str) -> Iterator[pa.RecordBatch]:
    """Batches of a file. Raises: IntegrityError when it is damaged; the store's own errors pass through."""
    batches = file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns))
    while True:
        try:
            yield next(batches)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{where} cannot be read: {str(error)[:200]}") from error


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))
